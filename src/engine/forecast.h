// When a newcomer would be finished, as far as the steps so far tell: a few sums, told by the
// engine thread before each step, so that a guess costs the same however many wait.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/step_cost.h"

namespace llorch {

// What requests have still to do, at most.
struct OpenWork {
  int32_t requests = 0, prompts = 0;  // of them, those that do not decode yet
  int64_t prompt_tokens = 0, output_tokens = 0;
  double decode_reads = 0;  // StepLoad's, of one row of each
  int64_t kv_tokens = 0;    // that they hold in the mean from now to their end

  void add(const OpenWork& other);
};

class Forecast {
 public:
  // Requests that run together are `max_batch` at most, and together hold at most `kv_tokens`.
  Forecast(int32_t max_batch, int64_t kv_tokens) : max_batch_(max_batch), kv_tokens_(kv_tokens) {}

  // [engine thread] What is known now: begin(), then each request that the engine has taken, then
  // publish().
  void begin();
  void add(int32_t priority, const OpenWork& request);
  void publish(const StepCost& cost);

  struct Times {
    std::chrono::milliseconds place{0};   // until it runs
    std::chrono::milliseconds finish{0};  // until its last token
  };
  // [any thread] Of a newcomer that has `work` to do, beside `open` requests, who all take what
  // they may; those that the engine has not seen yet count as being like it. A lower priority makes
  // way. Nothing is counted for what the prefix cache may have. None as long as no step has been
  // seen.
  std::optional<Times> of(int32_t priority, const OpenWork& work, int32_t open) const;

 private:
  struct Class {
    int32_t priority = 0;
    OpenWork work;
  };

  const int32_t max_batch_;
  const int64_t kv_tokens_;
  std::vector<Class> next_;   // the engine thread's, in any order
  mutable std::mutex mutex_;  // held for as many lines as there are priorities
  std::vector<Class> classes_;
  StepTimes times_;
  bool known_ = false;
};

}  // namespace llorch
