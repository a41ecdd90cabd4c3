// Reads the wire format of protocol buffers, field by field. Knows nothing of any message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llorch::tok {

// The fields of one message, in the order of the bytes. A view: the bytes outlive it, and nothing
// is allocated.
class ProtobufReader {
 public:
  // `file` names the source in messages and outlives the reader; `where` is the message's offset in
  // it.
  ProtobufReader(std::string_view bytes, const std::string& file, size_t where = 0)
      : bytes_(bytes), file_(&file), where_(where) {}

  // Goes to the next field; false at the end. A field that was not asked for is passed over. Throws
  // Error{kCorruptFile} "file: byte N: ..." if the bytes end inside it or it has no known type.
  bool next();
  uint32_t field() const { return field_; }  // its number

  // The field's value. Throw Error{kCorruptFile} if it has another type.
  std::string_view bytes() const;
  ProtobufReader message() const;
  uint64_t varint() const;
  bool boolean() const { return varint() != 0; }
  int32_t int32() const { return static_cast<int32_t>(varint()); }
  float float32() const;

 private:
  enum Type : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  [[noreturn]] void corrupt(const char* what) const;
  void check(Type type, const char* name) const;
  uint64_t read_varint();
  std::string_view take(uint64_t size);

  std::string_view bytes_;
  const std::string* file_;
  size_t where_;
  size_t at_ = 0;
  uint32_t field_ = 0;
  uint32_t type_ = kVarint;
  uint64_t number_ = 0;     // of a varint
  std::string_view value_;  // of anything else
};

}  // namespace llorch::tok
