// What the kernels of quantised products have in common: the arithmetic, and how results leave,
// less the softcap. For kernel sources only.
//
// Arithmetic, the same in every kernel: of a slice of columns (slices_of()), block after block of
// 32 columns, value = fmaf(scale, sum of the block's products, value), where the sum is two
// mma_bf16 from zero; in q6_k each of the two has its own scale, and is added by itself. Minima
// follow each block: value = fmaf(-minimum, sum of its x, value). Slices are added in order.
#pragma once

#include <algorithm>
#include <type_traits>

#include "backends/cuda/kernels.h"
#include "backends/cuda/quantised_codes.h"
#include "base/error.h"

namespace llorch::cuda {

struct QuantisedParams {
  ProductArgs args;
  Slices slices;
  int32_t units = 0;                        // of all columns
  int64_t code_bytes = 0, scale_bytes = 0;  // of a panel
  uint32_t x_chunks = 0;                    // of 16 bytes, in a row of x
  bool aligned = false;                     // outputs of four rows can be written by 16 bytes
  float* partial = nullptr;  // [slice][token][partial_stride]: slices' sums, if blocks do one each
  int64_t partial_stride = 0;
};

template <DType type>
constexpr bool kHasMinima = type == DType::kQ4_K || type == DType::kQ5_K;

// A stage has units of x row by row; chunks of 16 bytes lie at their index ^ this, so that lanes
// that read fragments do not meet in a bank.
constexpr int kXRowBytes = kUnitColumns * 2, kXChunks = kXRowBytes / 16, kChunkColumns = 8;
__device__ inline uint32_t swizzle(uint32_t row) { return (row & 1) << 2 | (row & 2); }

// Where in a row lane t finds its part of a unit's first fragment.
template <DType type>
__device__ inline uint32_t x_offset(uint32_t row, uint32_t t) {
  if constexpr (type == DType::kQ6_K) return ((t / 2) ^ swizzle(row)) * 16 + t % 2 * 8;
  return (t ^ swizzle(row)) * 16;
}
// The same of the mma j of block b, `offset` being that or so many rows more.
__device__ inline uint32_t x_offset_in(uint32_t offset, int b, int j = 0) {
  return offset ^ static_cast<uint32_t>(b * 64 + j * 32);
}

// The B fragments of a block's two mma, of a row in a stage: `first` has x_offset_in() of them, and
// so has `second`, which q6_k alone reads.
template <DType type>
__device__ inline void load_x(const std::byte* first, const std::byte* second,
                              uint32_t (&x)[2][2]) {
  if constexpr (type == DType::kQ6_K) {
    const uint2 words[2] = {*reinterpret_cast<const uint2*>(first),
                            *reinterpret_cast<const uint2*>(second)};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      x[j][0] = words[j].x;
      x[j][1] = words[j].y;
    }
  } else {
    const uint4 words = *reinterpret_cast<const uint4*>(first);
    x[0][0] = words.x;
    x[0][1] = words.y;
    x[1][0] = words.z;
    x[1][1] = words.w;
  }
}

// Sums of a block's x, of the lane's two tokens.
__device__ inline float2 sums_of_x(const uint32_t (&x)[2][2]) {
  const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  float sums[4];
  mma_bf16_first(sums, ones, x[0]);
  mma_bf16(sums, ones, x[1]);
  return make_float2(sums[0], sums[1]);
}

__device__ inline void add_scaled(float (&value)[4], const float (&sum)[4], float scale0,
                                  float scale1) {
  value[0] = fmaf(scale0, sum[0], value[0]);
  value[1] = fmaf(scale0, sum[1], value[1]);
  value[2] = fmaf(scale1, sum[2], value[2]);
  value[3] = fmaf(scale1, sum[3], value[3]);
}

// Sums of a block's products of a tile of weights and one of x; q6_k has two of them.
template <DType type>
constexpr int kSums = type == DType::kQ6_K ? 2 : 1;
template <DType type>
using BlockSums = float[kSums<type>][4];

// Its mma j, after that before.
template <DType type>
__device__ inline void multiply(const uint32_t (&a)[2][4], const uint32_t (&x)[2][2], int j,
                                BlockSums<type>& sums) {
  if (j < kSums<type>) {
    mma_bf16_first(sums[j], a[j], x[j]);
  } else {
    mma_bf16(sums[0], a[1], x[1]);
  }
}

// Adds a block's sums to the value so far.
template <DType type>
__device__ inline void add_block(const BlockSums<type>& sums, const RowScales (&scales)[2],
                                 const float2& x_sum, float (&value)[4]) {
#pragma unroll
  for (int j = 0; j < kSums<type>; ++j) {
    add_scaled(value, sums[j], scales[0].scale[j], scales[1].scale[j]);
  }
  if constexpr (kHasMinima<type>) {
    const float both[4] = {x_sum.x, x_sum.y, x_sum.x, x_sum.y};
    add_scaled(value, both, scales[0].minus_min, scales[1].minus_min);
  }
}

template <int kTiles, int kTokens>
__device__ inline void clear(float (&values)[kTiles][kTokens][4]) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int n = 0; n < kTokens; ++n) {
#pragma unroll
      for (int k = 0; k < 4; ++k) values[i][n][k] = 0;
    }
  }
}

// Values of kRows rows from `row` on, two or four, of a token.
template <int kRows>
__device__ inline void store_rows(const QuantisedParams& p, const float* bias, int32_t token,
                                  int32_t row, float (&v)[kRows]) {
  float* const out = p.args.out + token * p.args.out_stride + row;
  const int32_t rows = p.args.w.rows - row;
  if (bias) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) v[i] = v[i] + (i < rows ? bias[row + i] : 0.0f);
  }
  if (p.aligned && kRows <= rows) {
    if constexpr (kRows == 4) {
      *reinterpret_cast<float4*>(out) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      *reinterpret_cast<float2*>(out) = make_float2(v[0], v[1]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i < rows) out[i] = v[i];
  }
}

// Where the x row of a product row begins, in chunks of 16 bytes.
__device__ inline uint32_t x_row(const QuantisedParams& p, int32_t token) {
  const int32_t row = p.args.rows ? p.args.rows[token] : token;
  return static_cast<uint32_t>(row) * p.x_chunks;
}

// A product's weights, and its rows.
struct Work {
  WeightRows w;
  int32_t begin, end;
};

// With experts what is number `index` of those that have rows, read when they are known; none: no
// rows. Few of many experts have any, and a block for each of them takes longer than to look.
// [warp]
__device__ inline Work work_of(const ProductArgs& args, int32_t index) {
  const Experts& experts = args.experts;
  if (experts.count == 0) return {args.w, 0, args.m};
  wait_for_previous();
  for (int32_t first = 0; first < experts.count; first += kWarp) {
    const int32_t mine = first + static_cast<int32_t>(threadIdx.x % kWarp);
    uint32_t busy = ballot(mine < experts.count && experts.start[mine] < experts.start[mine + 1]);
    for (; busy != 0; --index) {
      const int32_t expert = first + __ffs(static_cast<int>(busy)) - 1;
      if (index == 0) {
        return {experts.weights[expert], experts.start[expert], experts.start[expert + 1]};
      }
      busy &= busy - 1;
    }
  }
  return {args.w, 0, 0};
}
inline int32_t most_busy_experts(const ProductArgs& args) {
  return std::min(args.experts.count, args.m);
}

// quantised_few_rows.cu: at most 16 tokens, or experts with about as many each; tells whether the
// device has room for it.
bool few_rows_product(const Gpu& gpu, const QuantisedParams& params, int32_t tokens);
// quantised_many_rows.cu: any number of tokens.
void many_rows_product(const Gpu& gpu, const QuantisedParams& params, int32_t tokens);

// Shared memory that a block may have.
inline size_t most_shared_bytes(const Gpu& gpu) {
  const int architecture = gpu.facts().architecture;
  return size_t{architecture >= 90 ? 227u : architecture == 80 ? 163u : 99u} << 10;
}

// Calls body(constant) with the type as a constant.
template <class Body>
void with_type(DType type, const Body& body) {
  switch (type) {
    case DType::kQ8_0:
      return body(std::integral_constant<DType, DType::kQ8_0>());
    case DType::kQ4_0:
      return body(std::integral_constant<DType, DType::kQ4_0>());
    case DType::kQ4_K:
      return body(std::integral_constant<DType, DType::kQ4_K>());
    case DType::kQ5_K:
      return body(std::integral_constant<DType, DType::kQ5_K>());
    case DType::kQ6_K:
      return body(std::integral_constant<DType, DType::kQ6_K>());
    case DType::kIQ4_NL:
      return body(std::integral_constant<DType, DType::kIQ4_NL>());
    case DType::kF8E4M3:
      return body(std::integral_constant<DType, DType::kF8E4M3>());
    default:
      CHECK(false);
  }
}

}  // namespace llorch::cuda
