#include "formats/quant.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {
namespace {

constexpr int kK = 256;  // values of a "K" block

// The order of the multiplications and subtractions below is part of the format: another one rounds
// differently. The names d, m, q are ggml's: value = d q, or d q +- m.

uint32_t u16(const uint8_t* at) { return at[0] | static_cast<uint32_t>(at[1]) << 8; }
float f16(const uint8_t* at) { return f32_from_f16(static_cast<uint16_t>(u16(at))); }
int low(uint8_t byte) { return byte & 0x0F; }
int high(uint8_t byte) { return byte >> 4; }

void decode_f32(const uint8_t* b, float* y) { std::memcpy(y, b, sizeof *y); }
void decode_f16(const uint8_t* b, float* y) { *y = f16(b); }
void decode_bf16(const uint8_t* b, float* y) { *y = f32_from_bf16(static_cast<uint16_t>(u16(b))); }

// 32 values: the low halves of 16 bytes, then their high halves.
void decode_q4_0(const uint8_t* b, float* y) {
  const float d = f16(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(b[2 + i]) - 8);
    y[i + 16] = d * static_cast<float>(high(b[2 + i]) - 8);
  }
}

void decode_q4_1(const uint8_t* b, float* y) {
  const float d = f16(b), m = f16(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(b[4 + i])) + m;
    y[i + 16] = d * static_cast<float>(high(b[4 + i])) + m;
  }
}

// The fifth bits of a block of 32 follow one another.
int fifth_bit(const uint8_t* bits, int i) { return (bits[i / 8] >> (i % 8) & 1) << 4; }

void decode_q5_0(const uint8_t* b, float* y) {
  const float d = f16(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((low(b[6 + i]) | fifth_bit(b + 2, i)) - 16);
    y[i + 16] = d * static_cast<float>((high(b[6 + i]) | fifth_bit(b + 2, i + 16)) - 16);
  }
}

void decode_q5_1(const uint8_t* b, float* y) {
  const float d = f16(b), m = f16(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low(b[8 + i]) | fifth_bit(b + 4, i)) + m;
    y[i + 16] = d * static_cast<float>(high(b[8 + i]) | fifth_bit(b + 4, i + 16)) + m;
  }
}

void decode_q8_0(const uint8_t* b, float* y) {
  const float d = f16(b);
  for (int i = 0; i < 32; ++i) {
    y[i] = static_cast<float>(static_cast<int8_t>(b[2 + i])) * d;
  }
}

// 16 scales of 4 + 4 bits, 64 bytes of 2-bit values, d, m.
void decode_q2_k(const uint8_t* b, float* y) {
  const float d = f16(b + 80), m = f16(b + 82);
  for (int i = 0; i < kK; ++i) {
    const uint8_t scale = b[i / 16];
    const int q = b[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    y[i] = d * static_cast<float>(low(scale)) * static_cast<float>(q) -
           m * static_cast<float>(high(scale));
  }
}

// 32 bytes of third bits (set: no -4), 64 of 2-bit values, 16 scales of 6 bits, d.
void decode_q3_k(const uint8_t* b, float* y) {
  const uint8_t* packed = b + 96;
  const float d = f16(b + 108);
  float scales[16];
  for (int i = 0; i < 16; ++i) {
    const int low_bits = i < 8 ? low(packed[i]) : high(packed[i - 8]);
    const int high_bits = packed[8 + i % 4] >> (i / 4 * 2) & 3;
    scales[i] = d * static_cast<float>((low_bits | high_bits << 4) - 32);
  }
  for (int i = 0; i < kK; ++i) {
    const int bits = b[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    const int third = b[i % 32] >> (i / 32) & 1;
    y[i] = scales[i / 16] * static_cast<float>(bits - (third ? 0 : 4));
  }
}

// The eight 6-bit scales and minima of Q4_K and Q5_K, in 12 bytes.
struct ScaleMin {
  float d[8], m[8];
};
ScaleMin scale_min(const uint8_t* b) {
  const float d = f16(b), m = f16(b + 2);
  const uint8_t* s = b + 4;
  ScaleMin out;
  for (int i = 0; i < 4; ++i) {
    out.d[i] = d * static_cast<float>(s[i] & 0x3F);
    out.m[i] = m * static_cast<float>(s[4 + i] & 0x3F);
    out.d[4 + i] = d * static_cast<float>(low(s[8 + i]) | (s[i] >> 2 & 0x30));
    out.m[4 + i] = m * static_cast<float>(high(s[8 + i]) | (s[4 + i] >> 2 & 0x30));
  }
  return out;
}

void decode_q4_k(const uint8_t* b, float* y) {
  const ScaleMin s = scale_min(b);
  for (int i = 0; i < kK; ++i) {
    const int q = b[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 0x0F;
    y[i] = s.d[i / 32] * static_cast<float>(q) - s.m[i / 32];
  }
}

void decode_q5_k(const uint8_t* b, float* y) {
  const ScaleMin s = scale_min(b);
  for (int i = 0; i < kK; ++i) {
    const int fifth = b[16 + i % 32] >> (i / 32) & 1;
    const int q = (b[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 0x0F) | fifth << 4;
    y[i] = s.d[i / 32] * static_cast<float>(q) - s.m[i / 32];
  }
}

// 128 bytes of low halves, 64 of upper two bits, 16 scales of 8 bits, d.
void decode_q6_k(const uint8_t* b, float* y) {
  const float d = f16(b + 208);
  for (int i = 0; i < kK; ++i) {
    const int low_bits = b[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 0x0F;
    const int high_bits = b[128 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(b[192 + i / 16]));
    y[i] = scale * static_cast<float>((low_bits | high_bits << 4) - 32);
  }
}

constexpr float kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

void decode_iq4_nl(const uint8_t* b, float* y) {
  const float d = f16(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * kNonLinear[low(b[2 + i])];
    y[i + 16] = d * kNonLinear[high(b[2 + i])];
  }
}

// d, the upper two bits of eight scales, their low halves, 128 bytes of values.
void decode_iq4_xs(const uint8_t* b, float* y) {
  const float d = f16(b);
  const uint32_t upper = u16(b + 2);
  for (int i = 0; i < 8; ++i) {
    const int low_bits = b[4 + i / 2] >> (i % 2 * 4) & 0x0F;
    const int high_bits = static_cast<int>(upper >> (2 * i) & 3u);
    const float scale = d * static_cast<float>((low_bits | high_bits << 4) - 32);
    for (int j = 0; j < 16; ++j, ++y) {
      y[0] = scale * kNonLinear[low(b[8 + 16 * i + j])];
      y[16] = scale * kNonLinear[high(b[8 + 16 * i + j])];
    }
    y += 16;
  }
}

// E2M1, doubled; the scale is a power of two, halved.
constexpr float kE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void decode_mxfp4(const uint8_t* b, float* y) {
  const uint32_t e = b[0];
  const auto d = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * kE2M1[low(b[1 + i])];
    y[i + 16] = d * kE2M1[high(b[1 + i])];
  }
}

// What `--quantize f8_e4m3` makes.
void decode_f8_e4m3(const uint8_t* b, float* y) {
  const float d = f16(b);
  for (int i = 0; i < 32; ++i) y[i] = d * f32_from_e4m3(b[2 + i]);
}

constexpr GgmlType kF8E4M3 = {UINT32_MAX, "F8_E4M3", 32, 34, decode_f8_e4m3};

constexpr GgmlType kTypes[] = {
    {0, "F32", 1, 4, decode_f32},
    {1, "F16", 1, 2, decode_f16},
    {30, "BF16", 1, 2, decode_bf16},
    {2, "Q4_0", 32, 18, decode_q4_0},
    {3, "Q4_1", 32, 20, decode_q4_1},
    {6, "Q5_0", 32, 22, decode_q5_0},
    {7, "Q5_1", 32, 24, decode_q5_1},
    {8, "Q8_0", 32, 34, decode_q8_0},
    {10, "Q2_K", kK, 84, decode_q2_k},
    {11, "Q3_K", kK, 110, decode_q3_k},
    {12, "Q4_K", kK, 144, decode_q4_k},
    {13, "Q5_K", kK, 176, decode_q5_k},
    {14, "Q6_K", kK, 210, decode_q6_k},
    {20, "IQ4_NL", 32, 18, decode_iq4_nl},
    {23, "IQ4_XS", kK, 136, decode_iq4_xs},
    {39, "MXFP4", 32, 17, decode_mxfp4},
    // Known by name and size only.
    {9, "Q8_1", 32, 40, nullptr},
    {15, "Q8_K", kK, 292, nullptr},
    {16, "IQ2_XXS", kK, 66, nullptr},
    {17, "IQ2_XS", kK, 74, nullptr},
    {18, "IQ3_XXS", kK, 98, nullptr},
    {19, "IQ1_S", kK, 50, nullptr},
    {21, "IQ3_S", kK, 110, nullptr},
    {22, "IQ2_S", kK, 82, nullptr},
    {24, "I8", 1, 1, nullptr},
    {25, "I16", 1, 2, nullptr},
    {26, "I32", 1, 4, nullptr},
    {27, "I64", 1, 8, nullptr},
    {28, "F64", 1, 8, nullptr},
    {29, "IQ1_M", kK, 56, nullptr},
    {34, "TQ1_0", kK, 54, nullptr},
    {35, "TQ2_0", kK, 66, nullptr},
    {40, "NVFP4", 64, 36, nullptr},
    {41, "Q1_0", 128, 18, nullptr},
};

struct SameType {
  uint32_t id;
  DType dtype;
};
constexpr SameType kSameTypes[] = {{8, DType::kQ8_0},  {2, DType::kQ4_0},  {12, DType::kQ4_K},
                                   {13, DType::kQ5_K}, {14, DType::kQ6_K}, {20, DType::kIQ4_NL}};

}  // namespace

std::optional<DType> dtype_of(const GgmlType& type) {
  for (const SameType& same : kSameTypes) {
    if (same.id == type.id) return same.dtype;
  }
  if (type.id == kF8E4M3.id) return DType::kF8E4M3;
  return std::nullopt;
}

const GgmlType& ggml_type_of(DType quantised) {
  if (quantised == DType::kF8E4M3) return kF8E4M3;
  for (const SameType& same : kSameTypes) {
    if (same.dtype == quantised) return *find_ggml_type(same.id);
  }
  CHECK(false);
}

const GgmlType* find_ggml_type(uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) {
      return &type;
    }
  }
  return nullptr;
}

std::string readable_ggml_types() {
  std::string names;
  for (const GgmlType& type : kTypes) {
    if (type.decode != nullptr) {
      names += (names.empty() ? "" : ", ") + std::string(type.name);
    }
  }
  return names;
}

void dequantize(const GgmlType& type, std::span<const std::byte> blocks, float* values) {
  const auto block_bytes = static_cast<size_t>(type.block_bytes);
  CHECK(type.decode != nullptr && blocks.size() % block_bytes == 0);
  const auto* block = reinterpret_cast<const uint8_t*>(blocks.data());
  for (size_t left = blocks.size() / block_bytes; left > 0; --left) {
    type.decode(block, values);
    block += block_bytes;
    values += type.block_values;
  }
}

}  // namespace llorch
