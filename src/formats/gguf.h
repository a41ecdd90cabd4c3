// The GGUF container (versions 2 and 3, little-endian): typed metadata and a table of tensors.
// Knows no file system, no key but its own, and no model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/stored_tensor.h"

namespace llorch {

// One file's header, all of it checked. Immutable; any thread. Strings, arrays and tensors point
// into the file's bytes and live as long as those.
// The getters give none where the key is absent, and throw Error{kCorruptFile} "file: key: reason"
// where the value has another type or is out of range.
class Gguf {
 public:
  // `content` is the whole file. Throws Error{kCorruptFile}, or Error{kUnsupported} for another
  // version or byte order. A tensor of a type that cannot be read is listed without `type`.
  static Gguf parse(std::span<const std::byte> content, const std::string& file);

  const std::string& file() const { return file_; }
  // Named as the file names them, dims outermost first (GGUF has them the other way round).
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

  std::vector<std::string_view> keys() const;  // ascending
  bool contains(std::string_view key) const { return values_.contains(key); }
  bool is_array(std::string_view key) const;  // false if absent
  std::optional<int64_t> integer(std::string_view key, int64_t least, int64_t most) const;
  // A float or an integer.
  std::optional<double> number(std::string_view key, double least, double most) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<std::vector<std::string_view>> strings(std::string_view key) const;
  // Of integers or booleans.
  std::optional<std::vector<int64_t>> integers(std::string_view key, int64_t least,
                                               int64_t most) const;
  std::optional<std::vector<float>> floats(std::string_view key) const;

  // For what the caller finds wrong with a key.
  [[noreturn]] void corrupt(std::string_view key, std::string_view reason) const;
  [[noreturn]] void unsupported(std::string_view key, std::string_view reason) const;

 private:
  struct Value {
    uint32_t type = 0;  // of an array: its elements'
    bool array = false;
    uint64_t count = 1;
    std::span<const std::byte> bytes;
  };
  class Cursor;
  struct Entry;

  explicit Gguf(std::string file) : file_(std::move(file)) {}
  void read_metadata(Cursor& cursor, uint64_t count);
  void read_tensor_table(Cursor& cursor, uint64_t count);
  Entry read_entry(Cursor& cursor, std::string_view name) const;
  void check_block_layout() const;
  void check_overlaps() const;
  const Value* find(std::string_view key, bool array, std::string_view wanted) const;
  [[noreturn]] void wrong_type(std::string_view key, std::string_view wanted) const;

  std::string file_;
  std::map<std::string_view, Value> values_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace llorch
