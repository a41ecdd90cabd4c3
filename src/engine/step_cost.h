// How long a step takes, learned from the steps there were: what bounds a step's prefill, and what
// a finish is predicted with. Arithmetic only: knows no clock and no sequence.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/backend.h"

namespace llorch {

// What a step has to do.
struct StepLoad {
  int32_t decode_rows = 0, prefill_rows = 0;
  // Tokens whose k, v these rows read, summed over rows; the mean of all layers.
  double decode_reads = 0, prefill_reads = 0;
};

// How long a step may be.
struct StepBounds {
  double beside_decode = 2;                    // of the same step without its prefill rows
  std::chrono::milliseconds alone{500};        // of a step that decodes nothing
  int32_t least_beside = 4, least_alone = 64;  // prefill rows that a step may have in any case
  double for_drafts = 1.25;  // of the same step without drafts, if somebody has nothing of them
};

// Durations as a sum of parts, each at least 0. Plain numbers, to be handed from thread to thread.
struct StepTimes {
  // For each step; for each row; for each of the first 16; for each beyond the first 128 (a
  // device that waits for its memory computes some rows for nothing); for each decode row (it has
  // logits); for what decode rows and what prefill rows read.
  static constexpr size_t kParts = 7;
  std::array<double, kParts> ms{};

  static std::array<double, kParts> parts(const StepLoad& load);
  double of(const StepLoad& load) const;
};

class StepCost {
 public:
  StepCost(std::vector<KvGroup> groups, const StepBounds& bounds);

  // The load with `rows` rows more of a sequence whose first `computed` tokens are done.
  StepLoad with_decode(StepLoad load, int32_t computed) const;
  StepLoad with_prefill(StepLoad load, int32_t computed, int32_t rows) const;

  void learn(const StepLoad& load, std::chrono::nanoseconds took);
  // From a step's collect to the submit of the next, which waited for it.
  void learn_gap(std::chrono::nanoseconds took);
  bool known() const { return known_; }  // anything has been learned
  const StepTimes& times() const { return times_; }

  // How many rows of a prompt, at most `most`, the step may have beside `load`, of which `decode`
  // are the decode rows. All of them as long as nothing is known.
  int32_t prefill_rows(const StepLoad& load, int32_t computed, int32_t most) const;

  // A step's decode rows as they are without and with drafts, and what they are likely to bring.
  struct DraftPlan {
    StepLoad without, with;
    double tokens = 0;
    double least_gain = 0;  // of the sequence that has the least of it: tokens beside its one
  };
  // Whether `with` may become `more`, for `gain` tokens more: whether tokens come faster then, and
  // nobody's much slower. Yes as long as too few steps had as many decode rows to know: else it
  // would not be learned.
  bool pays(const DraftPlan& plan, const StepLoad& more, double gain) const;
  // Whether tokens come faster by a plan that must wait for a step than by its `rows` rows without
  // drafts that need not.
  bool worth_waiting(const DraftPlan& plan, double rows) const;

 private:
  double reads(int32_t computed, int32_t rows) const;
  double limit_ms(const StepLoad& load) const;

  const std::vector<KvGroup> groups_;
  const StepBounds bounds_;
  StepTimes times_;
  bool known_ = false;
  // The mean of the last steps of each kind. By kind, so that a thousand steps of one do not make
  // the others forgotten; in times of `slowness_`, so that a machine that becomes slower does so
  // for all kinds.
  struct Kind {
    std::array<double, StepTimes::kParts> parts{};
    double ms = 0;
    int steps = 0;
    uint64_t last = 0;  // of all steps
  };
  static size_t kind_of(const StepLoad& load);
  static size_t decode_class(const StepLoad& load);
  void fit(const std::array<double, StepTimes::kParts>& changed);

  std::vector<Kind> kinds_;
  StepTimes fitted_;                    // to them
  std::array<int, 32> decode_steps_{};  // by the power of two of their decode rows
  double slowness_ = 1;
  double gap_ms_ = 0;
  uint64_t steps_ = 0;
};

}  // namespace llorch
