// The body of a request as JSON, and typed access to its fields. Knows no paths: what is wrong is
// thrown, and the caller says it in its own form. Included by the server's own sources
// alone: it brings nlohmann-json along.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/errors.h"

namespace llorch {

using Json = nlohmann::ordered_json;  // messages reach templates in the client's order

// A value that goes without allocating: the library's destructor takes memory for what an array or
// object holds, and without any the process would end there.
struct JsonTree {
  explicit JsonTree(Json value = nullptr) : root(std::move(value)) {}
  JsonTree(JsonTree&&) = default;
  ~JsonTree();

  Json root;
};

// An object with those of its keys that are known; of a key that comes twice the last one counts.
// The first key that is not known goes to `unknown`; what it holds is checked, not stored. Throws
// BadJson, also for more than 64 levels, 2^20 values or 1024 keys in an object within; BadField.
JsonTree parse_object(std::string_view body, std::span<const std::string_view> known,
                      std::string* unknown = nullptr);

// The fields of one object, which must outlive this; each member throws BadField on a wrong type.
class Fields {
 public:
  enum class Nulls { kAreValues, kAreAbsent };
  explicit Fields(const Json& object, Nulls nulls = Nulls::kAreValues, std::string where = "")
      : object_(object), nulls_(nulls), where_(std::move(where)) {}

  const Json* find(const char* name) const;  // null if absent
  const Json& required(const char* name) const;
  std::string required_string(const char* name) const;
  uint32_t required_u32(const char* name) const;
  std::string string(const char* name, std::string absent) const;
  uint32_t u32(const char* name, uint32_t absent) const;
  std::optional<uint32_t> u32_or_null(const char* name) const;
  std::optional<uint64_t> u64_or_null(const char* name) const;
  int64_t i64(const char* name, int64_t absent) const;
  float f32(const char* name, float absent) const;
  std::optional<float> f32_or_null(const char* name) const;
  bool boolean(const char* name, bool absent) const;
  std::vector<std::string> strings(const char* name) const;

  // "messages[2].role": how messages name a field of this object.
  std::string path(const char* name) const { return where_ + name; }
  [[noreturn]] void wrong(const char* name, const std::string& what) const {
    throw BadField{path(name), what};
  }

 private:
  const Json& object_;
  const Nulls nulls_;
  const std::string where_;
};

// Token ids: an array of integers from 0 to 2^31 - 1. Throws BadField that names the element.
std::vector<int32_t> token_ids(const Json& value, const std::string& field);

}  // namespace llorch
