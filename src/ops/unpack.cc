#include "ops/unpack.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {
namespace {
float f16(const uint8_t* at) {
  uint16_t x;
  std::memcpy(&x, at, 2);
  return f32_from_f16(x);
}
}  // namespace

void unpack_codes(DType type, const std::byte* block, int index, uint8_t codes[32]) {
  const auto* b = reinterpret_cast<const uint8_t*>(block);
  switch (type) {
    case DType::kQ8_0:
      for (int i = 0; i < 32; ++i) codes[i] = b[2 + i] ^ 0x80;
      return;
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      for (int i = 0; i < 16; ++i) {
        codes[i] = b[2 + i] & 15;
        codes[i + 16] = b[2 + i] >> 4;
      }
      return;
    case DType::kQ4_K:
      for (int i = 0; i < 32; ++i) {
        codes[i] = static_cast<uint8_t>(b[16 + index / 2 * 32 + i] >> (index % 2 * 4) & 15);
      }
      return;
    case DType::kQ5_K:
      for (int i = 0; i < 32; ++i) {
        const int fifth = b[16 + i] >> index & 1;
        codes[i] =
            static_cast<uint8_t>((b[48 + index / 2 * 32 + i] >> (index % 2 * 4) & 15) | fifth << 4);
      }
      return;
    case DType::kQ6_K:
      for (int j = 0; j < 32; ++j) {
        const int i = index * 32 + j;
        const int low_bits = b[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 0x0F;
        const int high_bits = b[128 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        codes[j] = static_cast<uint8_t>(low_bits | high_bits << 4);
      }
      return;
    default:
      CHECK(false);
  }
}

BlockScales unpack_scales(DType type, const std::byte* block) {
  const auto* b = reinterpret_cast<const uint8_t*>(block);
  BlockScales out{};
  if (type == DType::kQ6_K) {
    out.d = f16(b + 208);
    std::memcpy(out.scales, b + 192, 16);
    return out;
  }
  out.d = f16(b);
  if (type != DType::kQ4_K && type != DType::kQ5_K) return out;
  out.dmin = f16(b + 2);
  const uint8_t* s = b + 4;
  for (int i = 0; i < 4; ++i) {
    out.scales[i] = s[i] & 0x3F;
    out.mins[i] = s[4 + i] & 0x3F;
    out.scales[4 + i] = static_cast<uint8_t>((s[8 + i] & 15) | (s[i] >> 2 & 0x30));
    out.mins[4 + i] = static_cast<uint8_t>(s[8 + i] >> 4 | (s[4 + i] >> 2 & 0x30));
  }
  return out;
}

bool scales_are_finite(DType type, const std::byte* block) {
  const BlockScales s = unpack_scales(type, block);
  return std::isfinite(s.d) && std::isfinite(s.dmin);
}

}  // namespace llorch
