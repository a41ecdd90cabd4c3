// device_code.h by nvcc. The inline assembly is PTX; its fragments' layouts are those of the PTX
// ISA's chapter on mma.m16n8k16, ldmatrix and cp.async.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace llorch::cuda {

template <class T>
__device__ inline T* dynamic_shared() {  // the block's, of launch()'s shared_bytes; 16-byte aligned
  extern __shared__ uint4 llorch_dynamic_shared[];
  return reinterpret_cast<T*>(llorch_dynamic_shared);
}

__device__ inline uint32_t bits_of(float v) { return __float_as_uint(v); }
__device__ inline float float_of_bits(uint32_t v) { return __uint_as_float(v); }

__device__ inline uint32_t shuffle_xor(uint32_t v, int mask) {  // [warp]
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
__device__ inline uint32_t shuffle(uint32_t v, int lane) {  // [warp]
  return __shfl_sync(0xffffffffu, v, lane);
}
__device__ inline uint32_t ballot(bool v) { return __ballot_sync(0xffffffffu, v); }  // [warp]
__device__ inline void sync_warp() { __syncwarp(); }                                 // [warp]
__device__ inline void sync_block() { __syncthreads(); }
__device__ inline uint32_t warp_max(uint32_t v) {  // over the 32 lanes, in each [warp]
  return __reduce_max_sync(0xffffffffu, v);
}
__device__ inline uint32_t equal_lanes(uint32_t v) {  // a bit for each lane that has v, too [warp]
  return __match_any_sync(0xffffffffu, v);
}
// The sum over the lanes up to this one. [warp]
__device__ inline uint64_t warp_prefix_sum(uint64_t v) {
  const unsigned lane = threadIdx.x % 32;
  for (unsigned step = 1; step < 32; step *= 2) {
    const uint64_t below = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(v), step);
    if (lane >= step) v += below;
  }
  return v;
}
// Adds, for all threads of the device at once; what was there before.
__device__ inline uint32_t add_atomically(uint32_t* to, uint32_t v) { return atomicAdd(to, v); }

__device__ inline uint16_t bf16_of_float(float v) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
__device__ inline float float_of_f16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ inline uint16_t f16_of_float(float v) { return __half_as_ushort(__float2half_rn(v)); }
__device__ inline uint32_t f16_pair(float low, float high) {  // low in the lower half
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// E4M3 without infinities; what is beyond 448 becomes 448.
__device__ inline float float_of_e4m3(uint8_t bits) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}
__device__ inline uint8_t e4m3_of_float(float v) {
  return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
}

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// c += a b of 16 x 16 and 16 x 8 bf16, summed in f32. Lane l holds, with g = l / 4 and t = l % 4:
// a[0] = A[g][2t, 2t+1], a[1] = A[g+8][..], a[2] = A[g][2t+8, 2t+9], a[3] = A[g+8][2t+8, ..];
// b[0] = B[2t, 2t+1][g], b[1] = B[2t+8, 2t+9][g]; c[0, 1] = C[g][2t, 2t+1], c[2, 3] = C[g+8][..].
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of f16.
__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c = a b of bf16: a sum that begins here.
__device__ inline void mma_bf16_first(float (&c)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(0.0f));
}

// Two bf16 in a word each: the differences, and the products, rounded to the nearest. Subnormal
// numbers count.
__device__ inline uint32_t subtract_bf16_pairs(uint32_t a, uint32_t b) {
  const __nv_bfloat162 difference = __hsub2_rn(reinterpret_cast<const __nv_bfloat162&>(a),
                                               reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(difference);
}
__device__ inline uint32_t multiply_bf16_pairs(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2_rn(reinterpret_cast<const __nv_bfloat162&>(a),
                                            reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(product);
}

// (v & mask) | bits, as one instruction also where both are constants.
__device__ inline uint32_t and_or(uint32_t v, uint32_t mask, uint32_t bits) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(v), "r"(mask), "r"(bits));
  return result;
}

// Four of the bytes of low (0 to 3) and high (4 to 7), as four half bytes of `chosen` say.
__device__ inline uint32_t select_bytes(uint32_t low, uint32_t high, uint32_t chosen) {
  return __byte_perm(low, high, chosen);
}

// Loads four 8 x 8 matrices of 16 bits from shared memory: lane l names row l % 8 of matrix l / 8
// (16 bytes, aligned), and gets of matrix i, in r[i], elements 2t, 2t+1 of row g. [warp]
__device__ inline void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same of the transposed matrices: elements [2t][g] and [2t+1][g]. [warp]
__device__ inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// Two matrices, named by lanes 0 to 15. [warp]
__device__ inline void load_matrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// Starts a copy of 16 bytes, both sides aligned; zeros instead if not `valid`. It is there for the
// thread that asked once copy_async_wait<N>() has left at most N later groups, and for the others
// after a barrier that follows.
__device__ inline void copy_async_16(void* shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
// The same of what neighbours on the multiprocessor read too: by way of the first cache.
__device__ inline void copy_async_16_cached(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 2^v within 2^-22 of itself; what is below 2^-126 is zero, and 2^0 is exactly 1.
__device__ inline float exp2_approx(float v) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(v));
  return power;
}

// 1 / v within two units in the last place; of infinity 0.
__device__ inline float reciprocal_approx(float v) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(v));
  return inverse;
}

// A read of 16 bytes that are used once, past the first cache.
__device__ inline uint4 load_once(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// The same of fewer bytes.
__device__ inline uint2 load_once(const uint2* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(p));
  return v;
}
__device__ inline uint32_t load_once(const uint32_t* p) {
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}

// Programmatic dependent launch: before this nothing may be read that an earlier kernel wrote, or
// written that one reads; weights may be. Every kernel calls it.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel's blocks may start where there is room; what they do before wait_for_previous()
// runs beside this one.
__device__ inline void allow_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace llorch::cuda
