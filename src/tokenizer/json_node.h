// Checked access to a parsed JSON document, which names the place of whatever is wrong. For .cc
// files of this folder only: it brings nlohmann's header with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace llorch::tok {

// `text` as it may stand in a one-line message: control bytes become '?', long text is cut.
std::string shown(std::string_view text);

// Error{kCorruptFile} and Error{kUnsupported} "file: path: reason".
[[noreturn]] void throw_corrupt_at(const std::string& file, const std::string& path,
                                   const std::string& reason);
[[noreturn]] void throw_unsupported_at(const std::string& file, const std::string& path,
                                       const std::string& reason);

// One value of a document that outlives it. What is missing or has another type is corrupt.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, const std::string& file, std::string path)
      : value_(&value), file_(&file), path_(std::move(path)) {}

  // A member of an object: none where it is absent or null.
  std::optional<JsonNode> find(const char* key) const;
  JsonNode at(const char* key) const;
  std::vector<JsonNode> items() const;                            // of an array
  std::vector<std::pair<std::string, JsonNode>> members() const;  // of an object

  const std::string& string() const;
  bool boolean() const;
  int64_t integer(int64_t least, int64_t most) const;
  bool is_string() const { return value_->is_string(); }
  bool is_object() const { return value_->is_object(); }
  bool is_zero() const { return value_->is_number() && value_->get<double>() == 0; }
  bool boolean_or(const char* key, bool otherwise) const;

  [[noreturn]] void corrupt(const std::string& reason) const;
  [[noreturn]] void unsupported(const std::string& reason) const;
  const std::string& file() const { return *file_; }

 private:
  [[noreturn]] void wrong_type(const char* wanted) const;

  const nlohmann::json* value_;
  const std::string* file_;
  std::string path_;
};

}  // namespace llorch::tok
