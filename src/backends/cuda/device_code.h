// What kernel sources are written in: CUDA C++, less what only a GPU can do, which has a name of
// its own here. Two headers define these names, one for nvcc and one that runs the same kernels on
// the host, thread by thread, for tests. Kernel sources include this and no CUDA header.
//
// Rules that the host's version holds kernels to:
// - A block has whole warps, and a function marked [warp] is called by all 32 lanes at once.
// - A kernel takes one struct by value and is started by launch() (launch.h).
// - No a * b + c is fused unless a source says fmaf(): one answer (nvcc runs with --fmad=false).
#pragma once

#ifdef __CUDACC__
#include "backends/cuda/device_code_nvcc.h"
#else
#include "backends/cuda/emulated/device_code.h"
#endif

namespace llorch::cuda {

constexpr int kWarp = 32;

__device__ inline float shuffle_xor(float v, int mask) {  // [warp]
  return float_of_bits(shuffle_xor(bits_of(v), mask));
}
__device__ inline float shuffle(float v, int lane) {  // [warp]
  return float_of_bits(shuffle(bits_of(v), lane));
}

// The sum, or maximum, over the 32 lanes, the same bits in each. [warp]
__device__ inline float warp_sum(float v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v = v + shuffle_xor(v, mask);
  return v;
}
__device__ inline float warp_max(float v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask));
  return v;
}

// 16-bit floats by their bits. To the nearest, ties to even; a NaN stays one.
__device__ inline float float_of_bf16(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }
__device__ inline uint32_t pack_bf16(float low, float high) {
  return uint32_t{bf16_of_float(low)} | uint32_t{bf16_of_float(high)} << 16;
}
// What is finite stays so: beyond 65504 it becomes that.
__device__ inline uint16_t bounded_f16(float v) {
  constexpr float kMost = 65504;
  if (fabsf(v) > kMost && (bits_of(v) & 0x7fffffffu) < 0x7f800000u) v = v < 0 ? -kMost : kMost;
  return f16_of_float(v);
}
__device__ inline uint32_t pack_f16(float low, float high) {
  return uint32_t{bounded_f16(low)} | uint32_t{bounded_f16(high)} << 16;
}

// The same with the type as a parameter.
template <bool kF16>
__device__ inline uint32_t pack_16(float low, float high) {
  return kF16 ? pack_f16(low, high) : pack_bf16(low, high);
}
template <bool kF16>
__device__ inline void mma_16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kF16) {
    mma_f16(c, a, b);
  } else {
    mma_bf16(c, a, b);
  }
}

}  // namespace llorch::cuda
