// What it takes to compare a library's product with our own, on the device: see products.h.
#include "backends/cuda/launch.h"
#include "backends/cuda/product_parts.h"

namespace llorch::cuda {
namespace {

constexpr uint32_t kBlocks = 1024, kThreads = 256;

__device__ inline int64_t first_of_thread() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }
constexpr int64_t kAllThreads = int64_t{kBlocks} * kThreads;

// A number's bits, well mixed.
__device__ inline uint32_t mixed(uint32_t v) {
  v = (v ^ v >> 16) * 0x7feb352du;
  v = (v ^ v >> 15) * 0x846ca68bu;
  return v ^ v >> 16;
}

// About normal, of all mantissas; one of 64 is far out, as activations have such.
__device__ inline float noise(uint32_t index) {
  const uint32_t a = mixed(index + 1), b = mixed(a ^ 0x9e3779b9u);
  const uint32_t bytes = (a & 255) + (a >> 8 & 255) + (a >> 16 & 255) + (a >> 24);
  const float normal = (static_cast<float>(bytes) - 510.0f) * (1.0f / 148.0f);
  const float factor = 0.5f + static_cast<float>(b >> 8) * 0x1p-24f;
  return normal * factor * ((b & 63) == 0 ? 32.0f : 1.0f);
}

struct NoiseParams {
  uint16_t* rows;
  int64_t count;
  int32_t cols, pitch;
  bool f16;
};

__global__ void noise_rows(const NoiseParams p) {
  allow_next();
  wait_for_previous();
  for (int64_t i = first_of_thread(); i < p.count; i += kAllThreads) {
    const float v = i % p.pitch < p.cols ? noise(static_cast<uint32_t>(i)) : 0.0f;
    p.rows[i] = p.f16 ? f16_of_float(v) : bf16_of_float(v);
  }
}

struct DifferenceParams {
  const float* a;
  const float* b;
  int64_t count;
  uint32_t* different;
};

__global__ void differences(const DifferenceParams p) {
  allow_next();
  wait_for_previous();
  uint32_t different = 0;
  for (int64_t i = first_of_thread(); i < p.count; i += kAllThreads) {
    different += bits_of(p.a[i]) != bits_of(p.b[i]);
  }
  if (different > 0) add_atomically(p.different, different);
}

}  // namespace

void fill_noise(const Gpu& gpu, const Activations& x, int32_t m) {
  const auto pitch = static_cast<int32_t>(x.rounded_stride());
  launch<noise_rows>(
      gpu, {.blocks_x = kBlocks, .threads = kThreads},
      NoiseParams{x.rounded, int64_t{m} * pitch, x.cols, pitch, x.rounded_type == DType::kF16});
}

void count_differences(const Gpu& gpu, const float* a, const float* b, int64_t count,
                       uint32_t* different) {
  launch<differences>(gpu, {.blocks_x = kBlocks, .threads = kThreads},
                      DifferenceParams{a, b, count, different});
}

}  // namespace llorch::cuda
