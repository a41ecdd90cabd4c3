// Where a thread is, and the highest of a warp's floats: as integers of the same order, which have
// an instruction for that. For kernel sources only.
#pragma once

#include "backends/cuda/device_code.h"

namespace llorch::cuda {

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ inline int block_threads() { return static_cast<int>(blockDim.x); }

// Ascending with v, which is no NaN, and never 0 or 1. -0 is 0.
__device__ inline uint32_t key_of(float v) {
  const uint32_t bits = bits_of(v), sign = 0x80000000u;
  return bits & sign && bits != sign ? ~bits : bits | sign;
}
__device__ inline float float_of_key(uint32_t key) {
  const uint32_t sign = 0x80000000u;
  return float_of_bits(key & sign ? key ^ sign : ~key);
}

// The highest key, and of the indices that have it the lowest.
struct Best {
  uint32_t key;
  int32_t index;
};
__device__ inline Best warp_best(Best mine) {  // [warp]
  const uint32_t key = warp_max(mine.key);
  const uint32_t order = mine.key == key ? ~static_cast<uint32_t>(mine.index) : 0;
  return {key, static_cast<int32_t>(~warp_max(order))};
}

}  // namespace llorch::cuda
