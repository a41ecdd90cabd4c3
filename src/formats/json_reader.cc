#include "formats/json_reader.h"

#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "formats/file_error.h"

namespace llorch {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

// What a message shows of a value that is not what it must be.
std::string shown(const json& value) {
  return value.is_structured() ? std::string("an ") + value.type_name() : printable(value.dump());
}

// None for an absent key and for null.
const json* find(const std::shared_ptr<const void>& object, const std::string& key) {
  const json& fields = *static_cast<const json*>(object.get());
  const auto found = fields.find(key);
  return found == fields.end() || found->is_null() ? nullptr : &*found;
}

[[noreturn]] void wrong_type(const JsonReader& reader, const std::string& key, const char* wanted,
                             const json& value) {
  reader.corrupt(key, std::string("must be ") + wanted + "; got " + shown(value));
}

int64_t checked_integer(const JsonReader& reader, const std::string& key, const json& value,
                        int64_t least, int64_t most) {
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                        : value.is_number_integer();
  if (!fits || value.get<int64_t>() < least || value.get<int64_t>() > most) {
    reader.corrupt(key, "must be an integer from " + std::to_string(least) + " to " +
                            std::to_string(most) + "; got " + shown(value));
  }
  return value.get<int64_t>();
}

double checked_number(const JsonReader& reader, const std::string& key, const json& value,
                      double least, double most) {
  if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
    reader.corrupt(key, "must be a number from " + json(least).dump() + " to " + json(most).dump() +
                            "; got " + shown(value));
  }
  return value.get<double>();
}

}  // namespace

JsonReader::JsonReader(std::shared_ptr<const void> value, std::string file, std::string path)
    : value_(std::move(value)), file_(std::move(file)), path_(std::move(path)) {}

JsonReader JsonReader::parse(std::string_view text, const std::string& file) {
  std::set<std::string, std::less<>> seen;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxDepth) {
      throw_corrupt(file, "", "JSON nested deeper than " + std::to_string(kMaxDepth));
    }
    if (event == json::parse_event_t::key && depth == 1 &&
        !seen.insert(parsed.get_ref<const std::string&>()).second) {
      throw_corrupt(file, parsed.get_ref<const std::string&>(), "is listed twice");
    }
    return true;
  };
  auto root = std::make_shared<json>();
  try {
    *root = json::parse(text, watch);
  } catch (const json::parse_error& e) {
    throw_corrupt(file, "", "not valid JSON at byte " + std::to_string(e.byte));
  } catch (const json::exception&) {
    throw_corrupt(file, "", "not valid JSON: a number is out of range");
  }
  if (!root->is_object()) {
    throw_corrupt(file, "", "must hold a JSON object; got " + shown(*root));
  }
  return JsonReader(std::move(root), file, "");
}

std::vector<std::string> JsonReader::keys() const {
  std::vector<std::string> keys;
  for (const auto& field : static_cast<const json*>(value_.get())->items()) {
    keys.push_back(field.key());
  }
  return keys;
}

bool JsonReader::contains(const std::string& key) const {
  return static_cast<const json*>(value_.get())->contains(key);
}

std::optional<int64_t> JsonReader::integer(const std::string& key, int64_t least,
                                           int64_t most) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  return checked_integer(*this, key, *value, least, most);
}

std::optional<double> JsonReader::number(const std::string& key, double least, double most) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  return checked_number(*this, key, *value, least, most);
}

std::optional<bool> JsonReader::boolean(const std::string& key) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    wrong_type(*this, key, "true or false", *value);
  }
  return value->get<bool>();
}

std::optional<std::string> JsonReader::string(const std::string& key) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    wrong_type(*this, key, "a string", *value);
  }
  return value->get<std::string>();
}

std::optional<std::vector<std::string>> JsonReader::strings(const std::string& key) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array()) {
    wrong_type(*this, key, "a list of strings", *value);
  }
  std::vector<std::string> list;
  for (const json& item : *value) {
    if (!item.is_string()) {
      wrong_type(*this, key, "a list of strings", item);
    }
    list.push_back(item.get<std::string>());
  }
  return list;
}

std::optional<std::vector<int64_t>> JsonReader::integers(const std::string& key, int64_t least,
                                                         int64_t most) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array()) {
    wrong_type(*this, key, "a list of integers", *value);
  }
  std::vector<int64_t> list;
  for (const json& item : *value) {
    list.push_back(checked_integer(*this, key, item, least, most));
  }
  return list;
}

std::optional<std::vector<double>> JsonReader::numbers(const std::string& key, double least,
                                                       double most) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array()) {
    wrong_type(*this, key, "a list of numbers", *value);
  }
  std::vector<double> list;
  for (const json& item : *value) {
    list.push_back(checked_number(*this, key, item, least, most));
  }
  return list;
}

std::optional<std::vector<int64_t>> JsonReader::one_or_more_integers(const std::string& key,
                                                                     int64_t least,
                                                                     int64_t most) const {
  const json* value = find(value_, key);
  if (value != nullptr && !value->is_array()) {
    return std::vector<int64_t>{checked_integer(*this, key, *value, least, most)};
  }
  return integers(key, least, most);
}

std::optional<JsonReader> JsonReader::object(const std::string& key) const {
  const json* value = find(value_, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_object()) {
    wrong_type(*this, key, "an object", *value);
  }
  return JsonReader(std::shared_ptr<const void>(value_, value), file_, path_ + key + ".");
}

void JsonReader::corrupt(const std::string& key, std::string_view reason) const {
  throw_corrupt(file_, path_ + key, reason);
}

void JsonReader::unsupported(const std::string& key, std::string_view reason) const {
  throw_unsupported(file_, path_ + key, reason);
}

}  // namespace llorch
