#include "tokenizer/json_node.h"

#include "base/error.h"

namespace llorch::tok {

std::string shown(std::string_view text) {
  constexpr size_t kMost = 60;
  size_t end = std::min(text.size(), kMost);
  while (end < text.size() && end > 0 && (text[end] & 0xC0) == 0x80) --end;
  std::string out(text.substr(0, end));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  if (end < text.size()) out += "...";
  return out;
}

void throw_corrupt_at(const std::string& file, const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::kCorruptFile, file + ": " + (path.empty() ? "" : path + ": ") + reason);
}

void throw_unsupported_at(const std::string& file, const std::string& path,
                          const std::string& reason) {
  throw Error(ErrorCode::kUnsupported, file + ": " + (path.empty() ? "" : path + ": ") + reason);
}

void JsonNode::corrupt(const std::string& reason) const { throw_corrupt_at(*file_, path_, reason); }

void JsonNode::unsupported(const std::string& reason) const {
  throw_unsupported_at(*file_, path_, reason);
}

void JsonNode::wrong_type(const char* wanted) const {
  corrupt(
      std::string("must be ") + wanted + "; got " +
      (value_->is_structured() ? std::string("an ") + value_->type_name() : shown(value_->dump())));
}

std::optional<JsonNode> JsonNode::find(const char* key) const {
  if (!value_->is_object()) wrong_type("an object");
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonNode(*found, *file_, path_.empty() ? key : path_ + "." + key);
}

JsonNode JsonNode::at(const char* key) const {
  std::optional<JsonNode> node = find(key);
  if (!node) corrupt(std::string("has no ") + key);
  return *node;
}

std::vector<JsonNode> JsonNode::items() const {
  if (!value_->is_array()) wrong_type("an array");
  std::vector<JsonNode> items;
  for (size_t i = 0; i < value_->size(); ++i) {
    items.emplace_back((*value_)[i], *file_, path_ + "[" + std::to_string(i) + "]");
  }
  return items;
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members() const {
  if (!value_->is_object()) wrong_type("an object");
  std::vector<std::pair<std::string, JsonNode>> members;
  for (const auto& [key, value] : value_->items()) {
    members.emplace_back(key, JsonNode(value, *file_, path_ + "." + shown(key)));
  }
  return members;
}

const std::string& JsonNode::string() const {
  if (!value_->is_string()) wrong_type("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonNode::boolean() const {
  if (!value_->is_boolean()) wrong_type("true or false");
  return value_->get<bool>();
}

int64_t JsonNode::integer(int64_t least, int64_t most) const {
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<uint64_t>() <= static_cast<uint64_t>(most)
                        : value_->is_number_integer();
  if (!fits || value_->get<int64_t>() < least || value_->get<int64_t>() > most) {
    corrupt("must be an integer from " + std::to_string(least) + " to " + std::to_string(most) +
            "; got " + (value_->is_structured() ? value_->type_name() : shown(value_->dump())));
  }
  return value_->get<int64_t>();
}

bool JsonNode::boolean_or(const char* key, bool otherwise) const {
  const std::optional<JsonNode> node = find(key);
  return node ? node->boolean() : otherwise;
}

}  // namespace llorch::tok
