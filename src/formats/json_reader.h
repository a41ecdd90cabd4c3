// Checked access to a JSON object that came from a model file: every value is fetched with the type
// and range it must have. Knows no key by itself.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch {

// A view of one object of a parsed document, which it keeps alive. Immutable; any thread.
// The getters give none where the key is absent or null, and throw Error{kCorruptFile} "file: key:
// reason" where the value has another type or is out of range.
class JsonReader {
 public:
  // Throws Error{kCorruptFile} if `text` is not one JSON object, is nested deeper than 64, or lists
  // a key of its top level twice.
  static JsonReader parse(std::string_view text, const std::string& file);

  std::vector<std::string> keys() const;
  bool contains(const std::string& key) const;  // null counts
  std::optional<int64_t> integer(const std::string& key, int64_t least, int64_t most) const;
  std::optional<double> number(const std::string& key, double least, double most) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> string(const std::string& key) const;
  std::optional<std::vector<std::string>> strings(const std::string& key) const;
  std::optional<std::vector<int64_t>> integers(const std::string& key, int64_t least,
                                               int64_t most) const;
  std::optional<std::vector<double>> numbers(const std::string& key, double least,
                                             double most) const;
  // As integers(), where a single number stands for a list of one.
  std::optional<std::vector<int64_t>> one_or_more_integers(const std::string& key, int64_t least,
                                                           int64_t most) const;
  std::optional<JsonReader> object(const std::string& key) const;

  // For what the caller finds wrong with a key of this object.
  [[noreturn]] void corrupt(const std::string& key, std::string_view reason) const;
  [[noreturn]] void unsupported(const std::string& key, std::string_view reason) const;

 private:
  JsonReader(std::shared_ptr<const void> value, std::string file, std::string path);

  std::shared_ptr<const void> value_;  // the object, a node of a document that it keeps alive
  std::string file_;
  std::string path_;  // of this object within the document: "" or "outer."
};

}  // namespace llorch
