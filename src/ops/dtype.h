// Scalar conversions between f32 and the other types, to the nearest, ties to even. The reference
// for every kernel; not for inner loops.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "ops/backend.h"

namespace llorch {

// The type of that name, if there is one.
std::optional<DType> dtype_named(std::string_view text);

// A block of a type: so many values of a row in so many bytes.
struct BlockLayout {
  int32_t values, bytes;
};
BlockLayout block_layout(DType type);  // one value where the type is not quantised
bool is_quantised(DType type);
// Of `count` values of a row; its last block may not be full.
uint64_t row_bytes(DType type, int64_t count);

uint16_t f16_from_f32(float value);
float f32_from_f16(uint16_t bits);
uint16_t bf16_from_f32(float value);  // a NaN stays a NaN
float f32_from_bf16(uint16_t bits);
// E4M3 of the OCP's 8-bit formats: no infinities, what is beyond 448 becomes 448.
uint8_t e4m3_from_f32(float value);
float f32_from_e4m3(uint8_t bits);

// Elements of a block of a q8_0 kv cache: an f16 scale, which is the largest magnitude over 127,
// times an int8 each. In f8_e4m3 it is over 448, times an E4M3 each.
constexpr size_t kQ8Block = 32;

// What `value` becomes when it is stored as `type`, which is not quantised.
float rounded(float value, DType type);
// The same for a row of any type; its blocks begin where it does, the last may be short. Where a
// block of q8_0 or f8_e4m3 has an element that is not finite, all of them become NaN.
void round_row(std::span<float> row, DType type);

// `count` elements of `type` at `bytes` (any alignment) as f32. `bytes` must hold them all.
std::vector<float> to_f32(std::span<const std::byte> bytes, DType type, size_t count);

}  // namespace llorch
