// When a newcomer would be finished, as far as the steps so far tell. Written by the engine thread,
// read by any without a lock: figures of two moments may meet, which a guess bears.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "engine/step_cost.h"

namespace llorch {

// What open requests have still to do, at most.
struct OpenWork {
  int32_t requests = 0, prompts = 0;  // of them, those that do not decode yet
  int64_t prompt_tokens = 0, output_tokens = 0;
  double decode_reads = 0;  // StepLoad's, of one row of each
};

class Forecast {
 public:
  explicit Forecast(int32_t max_batch) : max_batch_(max_batch) {}

  // [engine thread] What is known now. `work` has all that the engine has taken.
  void publish(const StepCost& cost, const OpenWork& work);

  struct Times {
    std::chrono::milliseconds place{0};   // until it runs
    std::chrono::milliseconds finish{0};  // until its last token
  };
  // Of a newcomer that is one row of `own` (StepCost::with_decode) while it decodes, behind `open`
  // requests, who all take what they may; those that the engine has not seen yet count as being
  // like it. Nothing is counted for what the prefix cache may have. None as long as no step has
  // been seen.
  std::optional<Times> of(int32_t prompt_tokens, int32_t max_tokens, const StepLoad& own,
                          int32_t open) const;

 private:
  const int32_t max_batch_;
  std::array<std::atomic<double>, StepTimes::kParts> ms_{};
  std::atomic<bool> known_{false};
  std::atomic<int32_t> requests_{0}, prompts_{0};
  std::atomic<int64_t> prompt_tokens_{0}, output_tokens_{0};
  std::atomic<double> decode_reads_{0};
};

}  // namespace llorch
