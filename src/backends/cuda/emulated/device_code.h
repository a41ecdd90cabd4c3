// device_code.h on the host, for tests: each thread of a block is a fiber, blocks run one after the
// other. A read that comes too early for a copy finds NaNs, a barrier that not all reach ends the
// process, and the order of threads can be drawn at random (emulated/block.h), so that a missing
// barrier shows in a result.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "backends/cuda/emulated/block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static thread_local  // blocks of one host thread follow each other
#define threadIdx (llorch::cuda::emulated::thread_index())
#define blockIdx (llorch::cuda::emulated::block().index)
#define blockDim (llorch::cuda::emulated::block().dim)
#define gridDim (llorch::cuda::emulated::block().grid)

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }

template <class A, class B>
auto min(A a, B b) -> decltype(a + b) {
  return b < a ? b : a;
}
template <class A, class B>
auto max(A a, B b) -> decltype(a + b) {
  return a < b ? b : a;
}
inline int __popc(uint32_t v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }

namespace llorch::cuda {

using std::exp, std::fabs, std::fmax, std::fmin;

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulated::block().dynamic_shared());
}

inline uint32_t bits_of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}
inline float float_of_bits(uint32_t v) {
  float value;
  std::memcpy(&value, &v, 4);
  return value;
}

inline uint32_t shuffle_xor(uint32_t v, int mask) { return emulated::shuffle_xor(v, mask); }
inline uint32_t shuffle(uint32_t v, int lane) { return emulated::shuffle(v, lane); }
inline uint32_t ballot(bool v) { return emulated::ballot(v); }
inline void sync_warp() { emulated::sync_warp(); }
inline void sync_block() { emulated::sync_block(); }
inline uint32_t warp_max(uint32_t v) { return emulated::warp_max(v); }
inline uint32_t equal_lanes(uint32_t v) { return emulated::equal_lanes(v); }
inline uint64_t warp_prefix_sum(uint64_t v) { return emulated::warp_prefix_sum(v); }
inline uint32_t add_atomically(uint32_t* to, uint32_t v) {
  const uint32_t before = *to;
  *to += v;
  return before;
}

inline uint16_t bf16_of_float(float v) { return emulated::bf16_of_float(v); }
inline float float_of_f16(uint16_t bits) { return emulated::float_of_f16(bits); }
inline uint16_t f16_of_float(float v) { return emulated::f16_of_float(v); }
inline uint32_t f16_pair(float low, float high) {
  return uint32_t{f16_of_float(low)} | uint32_t{f16_of_float(high)} << 16;
}
inline float float_of_e4m3(uint8_t bits) { return emulated::float_of_e4m3(bits); }
inline uint8_t e4m3_of_float(float v) { return emulated::e4m3_of_float(v); }

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated::mma(c, a, b, &emulated::float_of_bf16);
}
inline void mma_bf16_first(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  for (float& v : c) v = 0;
  mma_bf16(c, a, b);
}
inline uint32_t subtract_bf16_pairs(uint32_t a, uint32_t b) {
  return emulated::on_bf16_pairs(a, b, [](float x, float y) { return x - y; });
}
inline uint32_t multiply_bf16_pairs(uint32_t a, uint32_t b) {
  return emulated::on_bf16_pairs(a, b, [](float x, float y) { return x * y; });
}
inline uint32_t and_or(uint32_t v, uint32_t mask, uint32_t bits) { return (v & mask) | bits; }
inline uint32_t select_bytes(uint32_t low, uint32_t high, uint32_t chosen) {
  return emulated::select_bytes(low, high, chosen);
}
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated::mma(c, a, b, &emulated::float_of_f16);
}
inline void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  emulated::load_matrix(r, 4, row, false);
}
inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  emulated::load_matrix(r, 4, row, true);
}
inline void load_matrix_x2(uint32_t (&r)[2], const void* row) {
  emulated::load_matrix(r, 2, row, false);
}

inline void copy_async_16(void* shared, const void* global, bool valid = true) {
  emulated::copy_async(shared, global, valid);
}
inline void copy_async_16_cached(void* shared, const void* global) {
  emulated::copy_async(shared, global, true);
}
inline void copy_async_commit() { emulated::copy_async_commit(); }
template <int N>
void copy_async_wait() {
  emulated::copy_async_wait(N);
}

inline float exp2_approx(float v) {
  const float power = std::exp2(v);
  return power < 0x1p-126f ? 0 : power;
}

inline float reciprocal_approx(float v) { return 1 / v; }
inline uint4 load_once(const uint4* p) { return *p; }
inline uint2 load_once(const uint2* p) { return *p; }
inline uint32_t load_once(const uint32_t* p) { return *p; }
inline void wait_for_previous() {}
inline void allow_next() {}

}  // namespace llorch::cuda
