// A step's slices as the arrays that a backend reads. Knows no device and no policy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/rope_length.h"
#include "engine/scheduler.h"
#include "ops/backend.h"

namespace llorch {

struct BatchLimits {
  int32_t step_tokens = 0;   // rows of a step
  int32_t max_batch = 0;     // sequences of a step
  int32_t draft_rows = 0;    // of a step, beside those
  int32_t context = 0;       // tokens of a sequence
  int32_t block_tokens = 0;  // P
  size_t kv_groups = 1;      // G
  RopeLengths rope = {};
};

// Owns the arrays; what it returns is valid until its next call.
class BatchBuilder {
 public:
  explicit BatchBuilder(const BatchLimits& limits);

  // Rows in the order of `slices`; the wanted ones are the last of each slice that wants a token,
  // and its drafts'. `rows_before` were wanted of the step in flight that pending tokens come from.
  const Batch& build(std::span<const Slice> slices, size_t rows_before = 0);
  // The largest step that can come, without blocks and with all slots -1, for Backend::prepare().
  const Batch& largest();
  // [L] for the batch built last; `history` points into the sequences.
  std::span<const Sampling> sampling() const { return sampling_; }

 private:
  void clear();
  void add_rows(const Slice& slice);
  void add_wanted(const Slice& slice);
  void add_places(const Slice& slice, size_t group, size_t width);
  const Batch& finish();

  const BatchLimits limits_;
  std::vector<int32_t> tokens_, positions_, rope_len_, slots_, query_start_, kv_len_, blocks_,
      logit_rows_;
  std::vector<Sampling> sampling_;
  Batch batch_;
};

}  // namespace llorch
