// Codes and scales of a panel (quantised_layout.h) as products and embed() take them. For kernel
// sources only.
//
// Codes become bf16 exactly: bf16's 7 bits of fraction hold any whole number below 128 as 128 + n,
// which a subtraction makes the value. A scale is the exact f32 product of its parts.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/quantised_layout.h"

namespace llorch::cuda {

constexpr uint32_t kBf16Of128 = 0x43004300u;  // a pair of them
// iq4_nl's values, the first in the lowest byte.
constexpr uint64_t kNonLinearLow = 0xf6eaddcfbfad9881u, kNonLinearHigh = 0x7159453526190d01u;

__device__ inline float non_linear(uint32_t code) {
  const uint64_t half = code < 8 ? kNonLinearLow : kNonLinearHigh;
  return static_cast<float>(static_cast<int8_t>(half >> (code % 8 * 8)));
}

// Pairs of iq4_nl's values by their byte, each 32 times, so that no two lanes meet in a bank.
template <DType type>
constexpr bool kHasTable = type == DType::kIQ4_NL;
template <DType type>
constexpr int32_t kTableBytes = kHasTable<type> ? 256 * kWarp * 4 : 0;

// See scales_offset().
template <DType type>
__device__ inline int64_t scales_at(int32_t unit) {
  constexpr int kHeaders = Panel<type>::kHeaderBytes > 0 ? 1 : 0;
  return int64_t{unit} * 2 * kScaleBytes +
         int64_t{kHeaders * (unit / kHeaderUnits + 1)} * 2 * Panel<type>::kHeaderBytes;
}

// Fills it, by all of the block; a barrier must follow.
__device__ inline void fill_table(std::byte* table) {
  for (uint32_t byte = threadIdx.x; byte < 256; byte += blockDim.x) {
    const uint32_t pair = pack_bf16(non_linear(byte % 16), non_linear(byte / 16));
    for (uint32_t i = 0; i < 8; ++i) {  // begins elsewhere in each thread, for the banks' sake
      reinterpret_cast<uint4*>(table)[byte * 8 + (i + byte) % 8] =
          make_uint4(pair, pair, pair, pair);
    }
  }
}

// One lane's codes of a tile and unit, as they are stored.
template <DType type>
struct LaneCodes {
  static constexpr int kBits = Panel<type>::kBits;
  uint32_t low[kBits == 8 ? 8 : 4];
  uint32_t high[kBits == 6 ? 2 : 1];  // of 5 and 6 bits
};

struct FromShared {
  template <class T>
  static __device__ T load(const std::byte* at, uint32_t index) {
    return reinterpret_cast<const T*>(at)[index];
  }
};
struct FromGlobal {
  template <class T>
  static __device__ T load(const std::byte* at, uint32_t index) {
    return load_once(reinterpret_cast<const T*>(at) + index);
  }
};

template <DType type, class From>
__device__ inline LaneCodes<type> load_codes(const std::byte* tile, uint32_t lane) {
  constexpr int kBits = Panel<type>::kBits;
  LaneCodes<type> codes;
#pragma unroll
  for (uint32_t b = 0; b < (kBits == 8 ? 2 : 1); ++b) {
    const auto words = From::template load<uint4>(tile, b * kWarp + lane);
    codes.low[4 * b] = words.x;
    codes.low[4 * b + 1] = words.y;
    codes.low[4 * b + 2] = words.z;
    codes.low[4 * b + 3] = words.w;
  }
  if constexpr (kBits == 5) codes.high[0] = From::template load<uint32_t>(tile + 512, lane);
  if constexpr (kBits == 6) {
    const auto words = From::template load<uint2>(tile + 512, lane);
    codes.high[0] = words.x;
    codes.high[1] = words.y;
  }
  return codes;
}

// `by` may be negative.
__device__ inline uint32_t shift_right(uint32_t v, int by) { return by < 0 ? v << -by : v >> by; }

// Two E4M3, in the upper bytes of both halves: as bf16 they have the exponent's bias to make up
// for.
__device__ inline uint32_t pair_of_e4m3(uint32_t word) {
  constexpr uint32_t kBias = 0x7b807b80u;  // 2^120
  return multiply_bf16_pairs(and_or(word, 0x80008000u, word >> 4 & 0x07f007f0u), kBias);
}

// Two int8, in the lower bytes of both halves.
__device__ inline uint32_t pair_of_int8(uint32_t word) {
  // Of a negative one, 256 is taken away in place of 128: the sign is that bit of bf16's exponent.
  return subtract_bf16_pairs(and_or(word, 0x007f007fu, kBf16Of128),
                             and_or(word, 0x00800080u, kBf16Of128));
}

// Those of block b, which need not be a constant.
template <DType type>
struct BlockCodes {
  static constexpr int kBits = Panel<type>::kBits;
  uint32_t low[kBits == 8 ? 4 : 2];
  uint32_t high;
};
template <DType type>
__device__ inline BlockCodes<type> block_codes(const LaneCodes<type>& codes, int b) {
  constexpr int kBits = Panel<type>::kBits, kWords = kBits == 8 ? 4 : 2;
  BlockCodes<type> block;
#pragma unroll
  for (int i = 0; i < kWords; ++i) block.low[i] = b == 0 ? codes.low[i] : codes.low[kWords + i];
  if constexpr (kBits == 5) block.high = codes.high[0] >> (8 * b);
  if constexpr (kBits == 6) block.high = b == 0 ? codes.high[0] : codes.high[1];
  return block;
}

// The A fragment of the block's mma j. `table`: fill_table()'s, from this lane's word on.
template <DType type>
__device__ inline void fragment(const BlockCodes<type>& codes, int j, const std::byte* table,
                                uint32_t (&a)[4]) {
  constexpr int kBits = Panel<type>::kBits;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    if constexpr (kBits == 8) {
      const uint32_t word = codes.low[2 * j + r / 2];
      if constexpr (type == DType::kQ8_0) {
        a[r] = pair_of_int8(r % 2 == 0 ? word : word >> 8);
      } else {
        a[r] = pair_of_e4m3(r % 2 == 0 ? word << 8 : word);
      }
      continue;
    }
    const uint32_t word = codes.low[j];
    if constexpr (type == DType::kIQ4_NL) {
      a[r] = *reinterpret_cast<const uint32_t*>(table + (shift_right(word, 8 * r - 7) & 0x7f80u));
      continue;
    }
    constexpr uint32_t kZero = type == DType::kQ4_0 ? 8 : type == DType::kQ6_K ? 32 : 0;
    uint32_t code = and_or(word >> (4 * r), 0x000f000fu, kBf16Of128);
    const int pair = 4 * j + r;
    if constexpr (kBits == 5) code = and_or(shift_right(codes.high, pair - 4), 0x00100010u, code);
    if constexpr (kBits == 6)
      code = and_or(shift_right(codes.high, 2 * pair - 4), 0x00300030u, code);
    a[r] = subtract_bf16_pairs(code, kBf16Of128 + (kZero | kZero << 16));
  }
}

// Of a row of a tile: scale code * per_scale + scale_start, and the same of minima, which are
// negative here. Exact: the number that a code's byte makes, 2^15 + code, has few bits.
struct RowHeader {
  float per_scale, scale_start, per_min, min_start;
};

// What a lane needs of the header of its rows, h = 0 and 1.
template <DType type, class From>
__device__ inline void load_header(const std::byte* tile, uint32_t g, uint32_t (&header)[2]) {
  if constexpr (type == DType::kQ6_K) {
    header[0] = From::template load<uint32_t>(tile, g);
  } else if constexpr (Panel<type>::kHeaderBytes > 0) {
    const auto both = From::template load<uint2>(tile, g);
    header[0] = both.x;
    header[1] = both.y;
  }
}

template <DType type>
__device__ inline RowHeader row_header(const uint32_t (&header)[2], int h) {
  RowHeader row{};
  if constexpr (type == DType::kQ6_K) {
    row.per_scale = float_of_f16(static_cast<uint16_t>(header[0] >> (16 * h)));
    row.scale_start = row.per_scale * -(32768.0f + 128.0f);
  } else if constexpr (Panel<type>::kHeaderBytes > 0) {
    row.per_scale = float_of_f16(static_cast<uint16_t>(header[h]));
    row.scale_start = row.per_scale * -32768.0f;
    row.per_min = -float_of_f16(static_cast<uint16_t>(header[h] >> 16));
    row.min_start = row.per_min * -32768.0f;
  }
  return row;
}

// 2^15 + byte `index` of a word.
__device__ inline float above_2_15(uint32_t word, uint32_t index) {
  return float_of_bits(select_bytes(word, 0x47000000u, 0x7604u | index << 4));
}

// Of block b, for the rows h = 0 and 1 of a lane: scale[j] of mma j (the same for both but in
// q6_k), and the negative minimum.
struct RowScales {
  float scale[2], minus_min;
};
template <DType type>
__device__ inline RowScales row_scales(const uint2& scales, const RowHeader& header, int b, int h) {
  RowScales row{};
  const uint32_t word = b == 0 ? scales.x : scales.y;
  if constexpr (type == DType::kQ6_K) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      row.scale[j] = fmaf(above_2_15(word, static_cast<uint32_t>(2 * j + h)), header.per_scale,
                          header.scale_start);
    }
  } else if constexpr (Panel<type>::kHeaderBytes > 0) {
    const auto at = static_cast<uint32_t>(2 * h);
    row.scale[0] = fmaf(above_2_15(word, at), header.per_scale, header.scale_start);
    row.minus_min = fmaf(above_2_15(word, at + 1), header.per_min, header.min_start);
  } else {
    row.scale[0] = float_of_f16(static_cast<uint16_t>(word >> (16 * h)));
  }
  return row;
}

}  // namespace llorch::cuda
