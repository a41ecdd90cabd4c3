// Which graph replays a step: steps of few rows are padded to one of some sizes, each recorded
// before the worker is ready. Knows no op.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "backends/cuda/gpu.h"
#include "backends/cuda/step_input.h"
#include "ops/backend.h"

namespace llorch::cuda {

class StepGraphs {
 public:
  // All sizes that small steps are padded to, within the limits; no row sees more than `longest`.
  static std::vector<StepSizes> buckets(const StepLimits& limits, int32_t block_tokens,
                                        int32_t longest);
  // What the batch is padded to, if there is a graph for it.
  const Graph* find(const Batch& batch, StepSizes* sizes) const;
  void add(const StepSizes& sizes, Graph graph);
  void clear() { graphs_.clear(); }
  bool empty() const { return graphs_.empty(); }

 private:
  struct Key {
    int32_t longest;
    bool several_rows;  // of a sequence
    int32_t rows;
    auto operator<=>(const Key&) const = default;
  };
  std::map<Key, std::pair<StepSizes, Graph>> graphs_;
};

// The sizes of a step that is not padded.
StepSizes sizes_of(const Batch& batch);

}  // namespace llorch::cuda
