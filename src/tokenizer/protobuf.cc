#include "tokenizer/protobuf.h"

#include <cstring>

#include "base/error.h"

namespace llorch::tok {

void ProtobufReader::corrupt(const char* what) const {
  throw Error(ErrorCode::kCorruptFile,
              *file_ + ": byte " + std::to_string(where_ + at_) + ": " + what);
}

uint64_t ProtobufReader::read_varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    if (at_ == bytes_.size()) corrupt("the file ends inside a number");
    const auto byte = static_cast<unsigned char>(bytes_[at_++]);
    if (shift < 64) value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  corrupt("a number is too long");
}

std::string_view ProtobufReader::take(uint64_t size) {
  if (size > bytes_.size() - at_) corrupt("a field is longer than what is left");
  const std::string_view taken = bytes_.substr(at_, static_cast<size_t>(size));
  at_ += taken.size();
  return taken;
}

bool ProtobufReader::next() {
  if (at_ == bytes_.size()) return false;
  const uint64_t tag = read_varint();
  if (tag >> 32 != 0 || tag >> 3 == 0) corrupt("a field has no valid number");
  field_ = static_cast<uint32_t>(tag >> 3);
  type_ = static_cast<uint32_t>(tag & 7);
  switch (type_) {
    case kVarint:
      number_ = read_varint();
      break;
    case kFixed64:
      value_ = take(8);
      break;
    case kBytes:
      value_ = take(read_varint());
      break;
    case kFixed32:
      value_ = take(4);
      break;
    default:
      corrupt("a field has an unknown type");
  }
  return true;
}

void ProtobufReader::check(Type type, const char* name) const {
  if (type_ == type) return;
  corrupt(("field " + std::to_string(field_) + " is not " + name).c_str());
}

std::string_view ProtobufReader::bytes() const {
  check(kBytes, "a string or a message");
  return value_;
}

ProtobufReader ProtobufReader::message() const {
  check(kBytes, "a string or a message");
  return ProtobufReader(value_, *file_, where_ + at_ - value_.size());
}

uint64_t ProtobufReader::varint() const {
  check(kVarint, "a number");
  return number_;
}

float ProtobufReader::float32() const {
  check(kFixed32, "a 32-bit float");
  uint32_t bits = 0;
  for (size_t i = 0; i < sizeof bits; ++i) {
    bits |= static_cast<uint32_t>(static_cast<unsigned char>(value_[i])) << (8 * i);
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace llorch::tok
