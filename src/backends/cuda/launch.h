// How a kernel is started; for kernel sources only.
#pragma once

#include "backends/cuda/device_code.h"
#include "backends/cuda/gpu.h"

namespace llorch::cuda {

// Starts `kernel`, which takes one plain struct by value, on the stream. It may begin before what
// comes before it has ended, and waits for that in wait_for_previous(). No blocks: does nothing.
template <auto kernel, class Params>
void launch(const Gpu& gpu, const LaunchShape& shape, const Params& params) {
  if (shape.blocks_x == 0 || shape.blocks_y == 0 || shape.blocks_z == 0) return;
#ifdef __CUDACC__
  detail::launch(gpu, reinterpret_cast<const void*>(kernel), nullptr, shape, &params,
                 sizeof(Params));
#else
  const auto call = [](const void* given) { kernel(*static_cast<const Params*>(given)); };
  detail::launch(gpu, nullptr, call, shape, &params, sizeof(Params));
#endif
}

}  // namespace llorch::cuda
