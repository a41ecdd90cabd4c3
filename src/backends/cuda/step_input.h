// A step's arrays on their way to the device, and its results on their way back. Knows no op.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backends/cuda/gpu.h"
#include "backends/cuda/kernels.h"
#include "ops/backend.h"

namespace llorch::cuda {

// The most of each that a step may have.
struct StepLimits {
  int32_t rows = 0, sequences = 0, logit_rows = 0, vocab = 0;
  int32_t table_width = 0;  // blocks of a sequence
  size_t groups = 0;
};

// What a step is padded to, which is what its kernels are started for.
struct StepSizes {
  int32_t rows = 0, sequences = 0, logit_rows = 0, table_width = 0;
  int32_t longest = 0;       // tokens that a row may see
  int32_t most_queries = 0;  // rows that a sequence may have
};

// Where the arrays of the step lie on the device: places that depend on StepLimits alone.
struct StepView {
  StepSizes sizes;
  int32_t *tokens = nullptr, *positions = nullptr, *rope_len = nullptr, *row_sequence = nullptr;
  int32_t *query_start = nullptr, *kv_len = nullptr, *logit_rows = nullptr;
  std::vector<int32_t*> slots = {}, blocks = {};  // [G]
  RowSampling* sampling = nullptr;
  uint32_t* seen = nullptr;
  SampledRow* sampled = nullptr;
};

// Two steps' worth of pinned memory, so that one may be filled while the device reads the other.
// [engine thread]
class StepInput {
 public:
  StepInput(const Gpu& gpu, const StepLimits& limits);

  const StepLimits& limits() const { return limits_; }
  uint64_t device_bytes() const { return device_.bytes(); }
  // Starts the upload of a step padded to `sizes`: padding rows have slot -1, and belong to
  // sequences of their own where there is room.
  void send(const Batch& batch, std::span<const Sampling> sampling, const StepSizes& sizes);
  StepView view(const StepSizes& sizes) const;
  // Starts the download of results; of those with keep_logits also of their rows of `logits`.
  void fetch(const float* logits, std::span<const Sampling> sampling, int32_t vocab);
  // Waits for the oldest step fetched and gives its results.
  std::vector<Sampled> results();
  int in_flight() const { return in_flight_; }

 private:
  struct Slot {
    PinnedMemory up, down;
    std::unique_ptr<Event> fetched;
    struct Row {
      int32_t top_logprobs;
      bool keep_logits;
    };
    std::vector<Row> rows;
    PinnedMemory logits;  // of rows that are kept; tests alone have them
    int32_t vocab = 0;
  };
  struct Layout;
  Slot& slot() { return slots_[next_]; }

  const Gpu& gpu_;
  const StepLimits limits_;
  std::unique_ptr<Layout> layout_;
  DeviceMemory device_, sampled_;
  Slot slots_[2];
  int next_ = 0, oldest_ = 0, in_flight_ = 0;

 public:
  ~StepInput();
};

}  // namespace llorch::cuda
