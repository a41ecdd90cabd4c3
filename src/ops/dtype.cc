// The element types and their scalar conversions. Knows no device.
#include "ops/dtype.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "base/error.h"

namespace llorch {
namespace {

struct Known {
  const char* name;
  BlockLayout layout;
};
constexpr Known kKnown[] = {{"f32", {1, 4}},      {"f16", {1, 2}},      {"bf16", {1, 2}},
                            {"q8_0", {32, 34}},   {"q4_0", {32, 18}},   {"q4_k", {256, 144}},
                            {"q5_k", {256, 176}}, {"q6_k", {256, 210}}, {"iq4_nl", {32, 18}},
                            {"f8_e4m3", {32, 34}}};

const Known& known(DType type) {
  const auto index = static_cast<size_t>(type);
  CHECK(index < std::size(kKnown));
  return kKnown[index];
}

}  // namespace

const char* name(DType type) { return known(type).name; }

std::optional<DType> dtype_named(std::string_view text) {
  const auto* const found = std::ranges::find(kKnown, text, &Known::name);
  if (found == std::end(kKnown)) return std::nullopt;
  return static_cast<DType>(found - std::begin(kKnown));
}

BlockLayout block_layout(DType type) { return known(type).layout; }

bool is_quantised(DType type) { return known(type).layout.values > 1; }

size_t size_bytes(DType type) {
  CHECK(!is_quantised(type));
  return static_cast<size_t>(known(type).layout.bytes);
}

uint64_t row_bytes(DType type, int64_t count) {
  const BlockLayout block = known(type).layout;
  CHECK(count >= 0);
  return static_cast<uint64_t>((count + block.values - 1) / block.values) *
         static_cast<uint64_t>(block.bytes);
}

uint16_t f16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  }
  if (magnitude >= 0x477ff000u) {  // rounds to 65520 or more
    return static_cast<uint16_t>(sign | 0x7c00u);
  }
  if (magnitude < 0x38800000u) {  // below 2^-14: a subnormal, in steps of 2^-24
    if (magnitude < 0x33000000u) return static_cast<uint16_t>(sign);
    const uint32_t shift = 126u - (magnitude >> 23);
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t rest = mantissa & ((1u << shift) - 1u);
    const uint32_t half = 1u << (shift - 1u);
    uint32_t result = mantissa >> shift;
    if (rest > half || (rest == half && (result & 1u))) ++result;
    return static_cast<uint16_t>(sign | result);
  }
  const uint32_t rebased = magnitude - 0x38000000u;
  return static_cast<uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
}

float f32_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 0xffu : exponent + 112u;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

uint16_t bf16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float f32_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint8_t e4m3_from_f32(float value) {
  const uint32_t sign = std::bit_cast<uint32_t>(value) >> 24 & 0x80u;
  const float size = std::abs(value);
  if (std::isnan(value)) return static_cast<uint8_t>(sign | 0x7fu);
  if (size >= 448) return static_cast<uint8_t>(sign | 0x7eu);
  if (size < 0x1p-6f) {  // in steps of 2^-9; eight of them are the least normal number
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 0x1p9f)));
  }
  const uint32_t bits = std::bit_cast<uint32_t>(size) - (120u << 23);
  return static_cast<uint8_t>(sign | (bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20);
}

float f32_from_e4m3(uint8_t bits) {
  const uint32_t sign = (bits & 0x80u) << 24, rest = bits & 0x7fu;
  if (rest == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  const float size = rest < 8 ? static_cast<float>(rest) * 0x1p-9f
                              : std::bit_cast<float>((rest << 20) + (120u << 23));
  return sign ? -size : size;
}

float rounded(float value, DType type) {
  CHECK(type != DType::kQ8_0);
  switch (type) {
    case DType::kF16:
      return f32_from_f16(f16_from_f32(value));
    case DType::kBF16:
      return f32_from_bf16(bf16_from_f32(value));
    default:
      CHECK(!is_quantised(type));
      return value;
  }
}

void round_row(std::span<float> row, DType type) {
  const bool f8 = type == DType::kF8E4M3;
  if (type != DType::kQ8_0 && !f8) {
    for (float& value : row) value = rounded(value, type);
    return;
  }
  for (; !row.empty(); row = row.subspan(std::min(row.size(), kQ8Block))) {
    const auto block = row.first(std::min(row.size(), kQ8Block));
    float most = 0;
    bool finite = true;
    for (const float value : block) {
      most = std::max(most, std::abs(value));
      finite = finite && std::isfinite(value);
    }
    const float scale = f32_from_f16(f16_from_f32(most / (f8 ? 448.0f : 127.0f)));
    const auto code = [f8](float x) {  // ties to even
      return f8 ? f32_from_e4m3(e4m3_from_f32(x)) : std::clamp(std::nearbyint(x), -127.0f, 127.0f);
    };
    for (float& value : block) {
      value = !finite || std::isinf(scale) ? std::numeric_limits<float>::quiet_NaN()
              : scale == 0                 ? 0
                                           : code(value * (1 / scale)) * scale;
    }
  }
}

std::vector<float> to_f32(std::span<const std::byte> bytes, DType type, size_t count) {
  CHECK(bytes.size() / size_bytes(type) >= count);
  std::vector<float> values(count);
  if (type == DType::kF32) {
    if (count > 0) std::memcpy(values.data(), bytes.data(), count * sizeof(float));
    return values;
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + i * sizeof bits, sizeof bits);
    values[i] = type == DType::kF16 ? f32_from_f16(bits) : f32_from_bf16(bits);
  }
  return values;
}

}  // namespace llorch
