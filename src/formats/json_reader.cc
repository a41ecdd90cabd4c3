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

// Stores what the library reads, and refuses a key that comes twice and what is nested too deeply.
// (Its parser with a callback looks through a whole object after each object in it.)
class Builder : public nlohmann::detail::json_sax_dom_parser<json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<json>;
  Builder(json& root, const std::string& file) : Base(root), file_(file) {}

  bool start_object(size_t size) {
    open();
    return Base::start_object(size);
  }
  bool start_array(size_t size) {
    open();
    return Base::start_array(size);
  }
  bool end_object() {
    --depth_;
    return Base::end_object();
  }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& name) {
    if (depth_ == 1 && !seen_.insert(name).second) throw_corrupt(file_, name, "is listed twice");
    return Base::key(name);
  }
  bool parse_error(size_t byte, const std::string& /*token*/, const json::exception& what) {
    const bool number = dynamic_cast<const json::out_of_range*>(&what) != nullptr;
    throw_corrupt(file_, "",
                  number ? "not valid JSON: a number is out of range"
                         : "not valid JSON at byte " + std::to_string(byte));
  }

 private:
  void open() {
    if (++depth_ > kMaxDepth) {
      throw_corrupt(file_, "", "JSON nested deeper than " + std::to_string(kMaxDepth));
    }
  }

  const std::string& file_;
  std::set<std::string, std::less<>> seen_;
  int depth_ = 0;
};

}  // namespace

JsonReader::JsonReader(std::shared_ptr<const void> value, std::string file, std::string path)
    : value_(std::move(value)), file_(std::move(file)), path_(std::move(path)) {}

JsonReader JsonReader::parse(std::string_view text, const std::string& file) {
  auto root = std::make_shared<json>();
  Builder builder(*root, file);
  json::sax_parse(text, &builder);
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
