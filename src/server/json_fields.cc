#include "server/json_fields.h"

#include <algorithm>
#include <array>
#include <limits>

namespace llorch {
namespace {

constexpr int kMaxDepth = 64;
// A value takes 16 bytes, and a key of an ordered object costs a look at those before it.
constexpr size_t kMaxValues = size_t{1} << 20, kMaxKeys = 1024;

// Decides what of a body is stored, and bounds it.
class Keeper {
 public:
  Keeper(std::span<const std::string_view> known, std::string* unknown)
      : known_(known), unknown_(unknown) {}

  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    using Kind = Json::parse_event_t;
    const bool opens = event == Kind::object_start || event == Kind::array_start;
    if (opens && depth >= kMaxDepth) {
      throw BadJson{"the body is nested too deeply; at most " + std::to_string(kMaxDepth) +
                    " levels"};
    }
    if ((opens || event == Kind::value) && ++values_ > kMaxValues) {
      throw BadJson{"the body has too many values; at most " + std::to_string(kMaxValues)};
    }
    if (event == Kind::object_start) keys_[static_cast<size_t>(depth)] = 0;
    if (event != Kind::key) return true;
    if (depth == 1) return keep(value.get_ref<const std::string&>());
    if (kept_ && ++keys_[static_cast<size_t>(depth) - 1] > kMaxKeys) {
      throw BadJson{"an object has too many keys; at most " + std::to_string(kMaxKeys)};
    }
    return true;
  }

 private:
  bool keep(const std::string& key) {
    kept_ = std::find(known_.begin(), known_.end(), key) != known_.end();
    if (!kept_ && unknown_ && unknown_->empty()) *unknown_ = key.empty() ? "\"\"" : key;
    return kept_;
  }

  const std::span<const std::string_view> known_;
  std::string* const unknown_;
  std::array<size_t, kMaxDepth> keys_{};  // of the objects that are open, by depth
  size_t values_ = 0;
  bool kept_ = true;
};

}  // namespace

Json parse_object(std::string_view body, std::span<const std::string_view> known,
                  std::string* unknown) {
  const auto not_json = [](size_t byte) {
    return BadJson{"the body is not valid JSON; byte " + std::to_string(byte)};
  };
  // The library takes a NUL for the end of the text.
  if (const size_t nul = body.find('\0'); nul != std::string_view::npos) throw not_json(nul + 1);
  Keeper keeper(known, unknown);
  Json object;
  try {
    object = Json::parse(body, [&keeper](int depth, Json::parse_event_t event, Json& value) {
      return keeper(depth, event, value);
    });
  } catch (const Json::parse_error& e) {
    throw not_json(e.byte);
  } catch (const Json::out_of_range&) {
    throw BadJson{"the body has a number beyond all number types"};
  }
  if (!object.is_object()) throw BadField{"", "the body must be a JSON object"};
  return object;
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
