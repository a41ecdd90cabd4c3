// Rows of activations as kernels read and write them: four columns a thread, by 16 bytes where
// rows are made of such; and sums over a block. For kernel sources only.
#pragma once

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.h"

namespace llorch::cuda {

constexpr int kFour = 4;  // columns of a row that a thread has side by side

struct Four {
  float v[kFour];
};

// Activations to be written.
struct OutRows {
  float* values;
  uint16_t* rounded;
  int32_t cols, padded;
  int64_t stride;
  bool f16;  // what rounded rows are; else bf16
};
inline OutRows out_rows(const Activations& a) {
  const bool f16 = a.rounded_type == DType::kF16;
  return {a.values, a.rounded, a.cols, padded_columns(a.cols), a.stride, f16};
}
// Columns that have to be written, with the zeros behind a rounded row.
inline int32_t written_columns(const Activations& a) {
  return a.rounded ? padded_columns(a.cols) : a.cols;
}
// Whether every row begins at a multiple of 16 bytes and has no odd end. `stride` in floats.
inline bool in_fours(int32_t cols, int64_t stride) {
  return cols % kFour == 0 && stride % kFour == 0;
}

// A block (x, y) for each row and piece of its columns, four of which a thread has.
inline LaunchShape row_pieces(int32_t m, int32_t columns) {
  constexpr int32_t kMostThreads = 256;
  const int32_t fours = (columns + kFour - 1) / kFour;
  const int32_t threads = fours < kMostThreads ? (fours + kWarp - 1) / kWarp * kWarp : kMostThreads;
  return {.blocks_x = static_cast<uint32_t>(m),
          .blocks_y = static_cast<uint32_t>((fours + threads - 1) / threads),
          .threads = static_cast<uint32_t>(threads)};
}
// The first column of the thread's four.
__device__ inline int32_t first_column() {
  return static_cast<int32_t>((blockIdx.y * blockDim.x + threadIdx.x) * kFour);
}

// Columns first .. first + 3 of a row, zeros from `cols` on. kWide: see in_fours().
template <bool kWide>
__device__ inline Four read_four(const float* row, int32_t first, int32_t cols) {
  Four four = {};
  if (kWide) {
    if (first < cols) {
      const float4 all = *reinterpret_cast<const float4*>(row + first);
      four = {{all.x, all.y, all.z, all.w}};
    }
  } else {
    for (int i = 0; i < kFour; ++i) {
      if (first + i < cols) four.v[i] = row[first + i];
    }
  }
  return four;
}

template <bool kWide>
__device__ inline void write_four(float* row, int32_t first, int32_t cols, const Four& four) {
  if (kWide) {
    if (first < cols) {
      *reinterpret_cast<float4*>(row + first) =
          make_float4(four.v[0], four.v[1], four.v[2], four.v[3]);
    }
  } else {
    for (int i = 0; i < kFour; ++i) {
      if (first + i < cols) row[first + i] = four.v[i];
    }
  }
}

// To where `out` has room; what lies behind `cols` becomes zero in a rounded row.
template <bool kWide>
__device__ inline void write_four(const OutRows& out, int64_t row, int32_t first, Four four) {
  if (out.values) write_four<kWide>(out.values + row * out.stride, first, out.cols, four);
  if (out.rounded == nullptr || first >= out.padded) return;
  for (int i = 0; i < kFour; ++i) {
    if (first + i >= out.cols) four.v[i] = 0;
  }
  const auto pack = [&out](float low, float high) {
    return out.f16 ? pack_f16(low, high) : pack_bf16(low, high);
  };
  *reinterpret_cast<uint2*>(out.rounded + row * out.padded + first) =
      make_uint2(pack(four.v[0], four.v[1]), pack(four.v[2], four.v[3]));
}

// The sum over all threads of the block, the same bits in each, in an order that the number of
// threads fixes. `parts` has a float for each of 32 warps and serves one sum.
__device__ inline float block_sum(float v, float* parts) {
  const auto lane = static_cast<int>(threadIdx.x) % kWarp;
  v = warp_sum(v);
  if (lane == 0) parts[threadIdx.x / kWarp] = v;
  sync_block();
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? parts[lane] : 0.0f);
}

}  // namespace llorch::cuda
