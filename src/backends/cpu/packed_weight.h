// Weights as the kernels read them: rows in panels, so that one activation feeds a whole panel.
#pragma once

#include <span>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/memory.h"
#include "backends/cpu/thread_pool.h"
#include "ops/backend.h"

namespace llorch::cpu {

// Rows of one type.
struct PackedRows {
  DType type = DType::kF32;
  int32_t first_row = 0;  // of the weight
  PanelWeight view{};
  Memory panels;
};

struct PackedWeight {
  std::vector<PackedRows> rows;  // in order; none of a vector
  Memory vector_memory, bias;
  const float* vector() const { return vector_memory.as<float>(); }
  uint64_t bytes() const;
  // The rows that hold row `row`.
  const PackedRows& holding(int32_t row) const;
};

// `shape` is shapes::packed(parts, bias); one row makes a vector. Quantised parts stay as they are,
// all others become `type`. Throws OutOfMemory.
PackedWeight pack_weight(std::span<const RawTensor> parts, std::span<const RawTensor> bias,
                         Shape shape, DType type, const Kernels& kernels, ThreadPool& pool);

}  // namespace llorch::cpu
