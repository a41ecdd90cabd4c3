// For tests of this layer and those above: GGUF files made by hand, honest or not.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llorch::testing {

// The numbers that the format has for the types of values, in order.
enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

inline std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) {
    out.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
  }
  return out;
}
inline std::string u32(uint64_t value) { return little(value, 4); }
inline std::string u64(uint64_t value) { return little(value, 8); }
inline std::string f32(float value) { return u32(std::bit_cast<uint32_t>(value)); }
inline std::string gguf_string(const std::string& text) { return u64(text.size()) + text; }
inline std::string gguf_array(GgufType type, uint64_t count, const std::string& elements) {
  return u32(static_cast<uint32_t>(type)) + u64(count) + elements;
}

// What a file says is what it is told; only offsets and padding are worked out.
struct GgufFile {
  uint32_t version = 3;
  int64_t tensor_count = -1, value_count = -1;  // -1: as many as there are
  uint64_t alignment = 32;                      // of the data; says nothing in the metadata
  std::string metadata, table, data;
  int64_t tensors = 0, values = 0;

  // `bytes` are the value as stored.
  GgufFile& value(const std::string& key, GgufType type, const std::string& bytes) {
    metadata += gguf_string(key) + u32(static_cast<uint32_t>(type)) + bytes;
    ++values;
    return *this;
  }
  GgufFile& text(const std::string& key, const std::string& text) {
    return value(key, GgufType::kString, gguf_string(text));
  }
  GgufFile& number(const std::string& key, uint32_t number) {
    return value(key, GgufType::kU32, u32(number));
  }
  GgufFile& real(const std::string& key, float number) {
    return value(key, GgufType::kF32, f32(number));
  }
  GgufFile& boolean(const std::string& key, bool yes) {
    return value(key, GgufType::kBool, little(yes ? 1 : 0, 1));
  }
  GgufFile& texts(const std::string& key, const std::vector<std::string>& texts) {
    std::string elements;
    for (const std::string& text : texts) {
      elements += gguf_string(text);
    }
    return value(key, GgufType::kArray, gguf_array(GgufType::kString, texts.size(), elements));
  }
  // One line of the table; `dims` innermost first, as the file has them.
  GgufFile& entry(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                  uint64_t offset) {
    table += gguf_string(name) + u32(dims.size());
    for (const uint64_t dim : dims) {
      table += u64(dim);
    }
    table += u32(type) + u64(offset);
    ++tensors;
    return *this;
  }
  GgufFile& tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                   const std::string& bytes) {
    entry(name, dims, type, data.size());
    data += bytes;
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  std::string build() const {
    std::string file = "GGUF" + u32(version) +
                       u64(static_cast<uint64_t>(tensor_count < 0 ? tensors : tensor_count)) +
                       u64(static_cast<uint64_t>(value_count < 0 ? values : value_count)) +
                       metadata + table;
    if (!data.empty()) {
      file.resize((file.size() + alignment - 1) / alignment * alignment);
    }
    return file + data;
  }
};

}  // namespace llorch::testing
