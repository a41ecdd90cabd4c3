// Weights as the kernels read them: rows in panels, so that one activation feeds a whole panel.
#pragma once

#include <span>

#include "backends/cpu/kernels.h"
#include "backends/cpu/memory.h"
#include "backends/cpu/thread_pool.h"
#include "ops/backend.h"

namespace llorch::cpu {

struct PackedWeight {
  PanelWeight view{};   // its panels are empty for a vector
  Memory panels, bias;  // of a vector, `panels` holds its elements in f32
  const float* vector() const { return panels.as<float>(); }
  uint64_t bytes() const { return panels.bytes() + bias.bytes(); }
};

// `shape` is shapes::packed(parts, bias); one row makes a vector. Throws OutOfMemory.
PackedWeight pack_weight(std::span<const RawTensor> parts, std::span<const RawTensor> bias,
                         Shape shape, DType type, const Kernels& kernels, ThreadPool& pool);

}  // namespace llorch::cpu
