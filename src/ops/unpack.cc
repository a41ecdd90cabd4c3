#include "ops/unpack.h"

#include <cstring>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {
namespace {

// Where a type has its d, and dmin behind it.
constexpr size_t kQ6KScale = 208;

uint16_t u16(const std::byte* at) {
  uint16_t x;
  std::memcpy(&x, at, sizeof x);
  return x;
}

const uint8_t* bytes_at(const std::byte* block, size_t offset) {
  return reinterpret_cast<const uint8_t*>(block) + offset;
}

bool has_mins(DType type) { return type == DType::kQ4_K || type == DType::kQ5_K; }

// Eight bytes at a time, in the order of any machine.
uint64_t load(const uint8_t* from) {
  uint64_t bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return bytes;
}
void store(uint64_t bytes, uint8_t* to) { std::memcpy(to, &bytes, sizeof bytes); }
constexpr uint64_t each_byte(uint64_t byte) { return byte * 0x0101010101010101u; }

// 32 halves of as many bytes, or 32 of 16 bytes: the low ones first.
void unpack_halves(const uint8_t* from, bool high, uint8_t* codes) {
  for (int i = 0; i < 32; i += 8) {
    store(load(from + i) >> (high ? 4 : 0) & each_byte(0x0F), codes + i);
  }
}
void unpack_16_bytes(const uint8_t* from, uint8_t* codes) {
  for (int i = 0; i < 16; i += 8) {
    store(load(from + i) & each_byte(0x0F), codes + i);
    store(load(from + i) >> 4 & each_byte(0x0F), codes + i + 16);
  }
}

// Bits `shift` and on of 32 bytes, above the four that codes have.
void add_upper_bits(const uint8_t* from, int shift, uint64_t mask, uint8_t* codes) {
  for (int i = 0; i < 32; i += 8) {
    const uint64_t upper = load(from + i) >> shift & each_byte(mask);
    store(load(codes + i) | upper << 4, codes + i);
  }
}

}  // namespace

void unpack_codes(DType type, const std::byte* block, int index, uint8_t codes[32]) {
  switch (type) {
    case DType::kQ8_0: {
      const uint8_t* values = bytes_at(block, 2);
      for (int i = 0; i < 32; i += 8) store(load(values + i) ^ each_byte(0x80), codes + i);
      return;
    }
    case DType::kF8E4M3:
      std::memcpy(codes, block + 2, 32);
      return;
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return unpack_16_bytes(bytes_at(block, 2), codes);
    case DType::kQ4_K:
      return unpack_halves(bytes_at(block, 16) + index / 2 * 32, index % 2 == 1, codes);
    case DType::kQ5_K:
      unpack_halves(bytes_at(block, 48) + index / 2 * 32, index % 2 == 1, codes);
      return add_upper_bits(bytes_at(block, 16), index, 1, codes);
    case DType::kQ6_K:  // in halves of 128 values
      unpack_halves(bytes_at(block, 0) + index / 4 * 64 + index % 2 * 32, index % 4 >= 2, codes);
      return add_upper_bits(bytes_at(block, 128) + index / 4 * 32, index % 4 * 2, 3, codes);
    default:
      CHECK(false);
  }
}

BlockScales unpack_scales(DType type, const std::byte* block) {
  BlockScales out{};
  if (type == DType::kQ6_K) {
    out.d = f32_from_f16(u16(block + kQ6KScale));
    std::memcpy(out.scales, bytes_at(block, 192), sizeof out.scales);
    return out;
  }
  out.d = f32_from_f16(u16(block));
  if (!has_mins(type)) return out;
  out.dmin = f32_from_f16(u16(block + 2));
  const uint8_t* packed = bytes_at(block, 4);
  for (int i = 0; i < 4; ++i) {
    out.scales[i] = packed[i] & 0x3F;
    out.mins[i] = packed[4 + i] & 0x3F;
    out.scales[4 + i] = static_cast<uint8_t>((packed[8 + i] & 0x0F) | (packed[i] >> 2 & 0x30));
    out.mins[4 + i] = static_cast<uint8_t>(packed[8 + i] >> 4 | (packed[4 + i] >> 2 & 0x30));
  }
  return out;
}

bool is_finite(DType type, const std::byte* block) {
  constexpr uint16_t kExponent = 0x7C00;
  const auto finite = [](uint16_t bits) { return (bits & kExponent) != kExponent; };
  if (type == DType::kQ6_K) return finite(u16(block + kQ6KScale));
  if (type == DType::kF8E4M3) {
    for (const uint8_t* code = bytes_at(block, 2); code < bytes_at(block, 34); ++code) {
      if ((*code & 0x7F) == 0x7F) return false;
    }
  }
  return finite(u16(block)) && (!has_mins(type) || finite(u16(block + 2)));
}

}  // namespace llorch
