#include "server/json_fields.h"

#include <algorithm>
#include <array>
#include <limits>
#include <new>

#include "base/memory_reserve.h"

namespace llorch {
namespace {

constexpr size_t kMaxDepth = 64;
// A value takes 16 bytes, and a key of an ordered object costs a look at those before it.
constexpr size_t kMaxValues = size_t{1} << 20, kMaxKeys = 1024;

// From the leaves, so that nothing that goes still holds something.
void empty(Json& value) {
  if (!value.is_structured()) return;
  for (Json& child : value) empty(child);
  value.clear();
}

BadJson not_json(size_t byte) {
  return BadJson{"the body is not valid JSON; byte " + std::to_string(byte)};
}

// Takes the library's events: decides what of a body is stored, and bounds it. (Its parser with a
// callback looks through a whole array after each object in it.)
class Reader {
 public:
  Reader(std::span<const std::string_view> known, std::string* unknown, Json& stored)
      : known_(known), unknown_(unknown), store_(stored) {}

  bool null() { return !keeps_value() || store_.null(); }
  bool boolean(bool value) { return !keeps_value() || store_.boolean(value); }
  bool number_integer(int64_t value) { return !keeps_value() || store_.number_integer(value); }
  bool number_unsigned(uint64_t value) { return !keeps_value() || store_.number_unsigned(value); }
  bool number_float(double value, const std::string& text) {
    return !keeps_value() || store_.number_float(value, text);
  }
  bool string(std::string& value) { return !keeps_value() || store_.string(value); }
  bool binary(Json::binary_t& value) { return !keeps_value() || store_.binary(value); }

  bool start_object(size_t size) {
    open();
    keys_[depth_ - 1] = 0;
    return !kept_ || store_.start_object(size);
  }
  bool start_array(size_t size) {
    open();
    return !kept_ || store_.start_array(size);
  }
  bool end_object() {
    close();
    return !kept_ || store_.end_object();
  }
  bool end_array() {
    close();
    return !kept_ || store_.end_array();
  }
  bool key(std::string& name) {
    if (depth_ == 1) {
      kept_ = std::find(known_.begin(), known_.end(), name) != known_.end();
      if (!kept_ && unknown_ && unknown_->empty()) *unknown_ = name.empty() ? "\"\"" : name;
    } else if (kept_ && ++keys_[depth_ - 1] > kMaxKeys) {
      throw BadJson{"an object has too many keys; at most " + std::to_string(kMaxKeys)};
    }
    return !kept_ || store_.key(name);
  }

  bool parse_error(size_t byte, const std::string& /*token*/, const Json::exception& what) {
    if (dynamic_cast<const Json::out_of_range*>(&what)) {
      throw BadJson{"the body has a number beyond all number types"};
    }
    throw not_json(byte);
  }

 private:
  bool keeps_value() {
    if (++values_ > kMaxValues) {
      throw BadJson{"the body has too many values; at most " + std::to_string(kMaxValues)};
    }
    return kept_;
  }
  void open() {
    if (depth_ >= kMaxDepth) {
      throw BadJson{"the body is nested too deeply; at most " + std::to_string(kMaxDepth) +
                    " levels"};
    }
    ++depth_;
    keeps_value();
  }
  void close() {
    if (--depth_ == 0) kept_ = true;
  }

  const std::span<const std::string_view> known_;
  std::string* const unknown_;
  nlohmann::detail::json_sax_dom_parser<Json> store_;
  std::array<size_t, kMaxDepth> keys_{};  // of the objects that are open, by depth
  size_t depth_ = 0, values_ = 0;
  bool kept_ = true;
};

}  // namespace

JsonTree::~JsonTree() { empty(root); }

JsonTree parse_object(std::string_view body, std::span<const std::string_view> known,
                      std::string* unknown) {
  // The library takes a NUL for the end of the text.
  if (const size_t nul = body.find('\0'); nul != std::string_view::npos) throw not_json(nul + 1);
  JsonTree tree;
  // While it grows the tree copies and destroys parts of itself, and see JsonTree.
  const MustAllocate must;
  Reader reader(known, unknown, tree.root);
  Json::sax_parse(body, &reader);
  if (!refill_memory_reserve()) throw std::bad_alloc();
  if (!tree.root.is_object()) throw BadField{"", "the body must be a JSON object"};
  return tree;
}

const Json* Fields::find(const char* name) const {
  const auto found = object_.find(name);
  if (found == object_.end()) return nullptr;
  return nulls_ == Nulls::kAreAbsent && found->is_null() ? nullptr : &*found;
}

const Json& Fields::required(const char* name) const {
  const Json* value = find(name);
  if (!value) wrong(name, "is missing");
  return *value;
}

std::string Fields::required_string(const char* name) const {
  required(name);
  return string(name, "");
}

uint32_t Fields::required_u32(const char* name) const {
  required(name);
  return u32(name, 0);
}

std::string Fields::string(const char* name, std::string absent) const {
  const Json* value = find(name);
  if (!value) return absent;
  if (!value->is_string()) wrong(name, "must be a string");
  return value->get<std::string>();
}

uint32_t Fields::u32(const char* name, uint32_t absent) const {
  const Json* value = find(name);
  if (!value) return absent;
  constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
  if (!value->is_number_unsigned() || value->get<uint64_t>() > kMax) {
    wrong(name, "must be an integer from 0 to 4294967295");
  }
  return value->get<uint32_t>();
}

std::optional<uint32_t> Fields::u32_or_null(const char* name) const {
  const Json* value = find(name);
  if (!value || value->is_null()) return std::nullopt;
  return u32(name, 0);
}

std::optional<uint64_t> Fields::u64_or_null(const char* name) const {
  const Json* value = find(name);
  if (!value || value->is_null()) return std::nullopt;
  if (!value->is_number_unsigned()) {
    wrong(name, "must be an integer from 0 to 18446744073709551615, or null");
  }
  return value->get<uint64_t>();
}

int64_t Fields::i64(const char* name, int64_t absent) const {
  const Json* value = find(name);
  if (!value) return absent;
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > kMax)) {
    wrong(name, "must be an integer");
  }
  return value->get<int64_t>();
}

float Fields::f32(const char* name, float absent) const {
  const Json* value = find(name);
  if (!value) return absent;
  if (!value->is_number()) wrong(name, "must be a number");
  return static_cast<float>(value->get<double>());
}

std::optional<float> Fields::f32_or_null(const char* name) const {
  const Json* value = find(name);
  if (!value || value->is_null()) return std::nullopt;
  return f32(name, 0);
}

bool Fields::boolean(const char* name, bool absent) const {
  const Json* value = find(name);
  if (!value) return absent;
  if (!value->is_boolean()) wrong(name, "must be true or false");
  return value->get<bool>();
}

std::vector<std::string> Fields::strings(const char* name) const {
  const Json* value = find(name);
  if (!value) return {};
  if (!value->is_array()) wrong(name, "must be an array of strings");
  std::vector<std::string> all;
  for (const Json& one : *value) {
    if (!one.is_string()) {
      throw BadField{path(name) + "[" + std::to_string(all.size()) + "]", "must be a string"};
    }
    all.push_back(one.get<std::string>());
  }
  return all;
}

std::vector<int32_t> token_ids(const Json& value, const std::string& field) {
  if (!value.is_array()) throw BadField{field, "must be an array of token ids"};
  constexpr uint64_t kMax = std::numeric_limits<int32_t>::max();
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& one : value) {
    if (!one.is_number_unsigned() || one.get<uint64_t>() > kMax) {
      throw BadField{field + "[" + std::to_string(ids.size()) + "]",
                     "must be an integer from 0 to 2147483647"};
    }
    ids.push_back(one.get<int32_t>());
  }
  return ids;
}

}  // namespace llorch
