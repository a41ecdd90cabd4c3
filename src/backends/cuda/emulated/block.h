// Runs a kernel's blocks on the host: each thread is a fiber, switched at barriers and at what a
// warp does together. Lanes and warps take turns in an order that LLORCH_EMULATED_ORDER chooses
// (forward, backward, or a number that seeds a random one). What a kernel must not do (a barrier or
// a warp's function that not all reach) ends the process with a message.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llorch::cuda::emulated {

struct Index {
  uint32_t x = 0, y = 0, z = 0;
};

struct Launch {
  Index grid, block;  // sizes
  size_t shared_bytes = 0;
};

// Calls kernel(params) for every thread of every block.
void run(const Launch& launch, void (*kernel)(const void*), const void* params);

// What a kernel sees.
struct BlockView {
  Index index, dim, grid;
  std::byte* shared = nullptr;
  std::byte* dynamic_shared() const { return shared; }
};
const BlockView& block();
const Index& thread_index();

void sync_block();
void sync_warp();
uint32_t shuffle(uint32_t v, int lane);
uint32_t shuffle_xor(uint32_t v, int mask);
uint32_t ballot(bool v);
uint32_t warp_max(uint32_t v);
uint32_t equal_lanes(uint32_t v);
uint64_t warp_prefix_sum(uint64_t v);
// `widen` reads an element of a and b.
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float (*widen)(uint16_t));
// `count` matrices, two or four.
void load_matrix(uint32_t* r, int count, const void* row, bool transposed);
void copy_async(void* shared, const void* global, bool valid);
void copy_async_commit();
void copy_async_wait(int groups_left);

uint32_t on_bf16_pairs(uint32_t a, uint32_t b, float (*op)(float, float));
uint32_t select_bytes(uint32_t low, uint32_t high, uint32_t chosen);
uint16_t bf16_of_float(float v);
float float_of_bf16(uint16_t bits);
float float_of_f16(uint16_t bits);
uint16_t f16_of_float(float v);
float float_of_e4m3(uint8_t bits);
uint8_t e4m3_of_float(float v);

}  // namespace llorch::cuda::emulated
