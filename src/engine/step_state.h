// What the engine is doing, for whoever must tell why it does not come back from a step.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/step.h"

namespace llorch {

struct StepState {
  struct Part {
    std::string job_id;  // at most its first 128 bytes
    bool decoding = false;
    int32_t computed = 0, known = 0;  // tokens
    int32_t blocks = 0;               // held, of all kv groups
  };
  uint64_t number = 0;  // from 1
  std::chrono::steady_clock::time_point began;
  int32_t running = 0, waiting = 0;
  int32_t blocks_used = 0, blocks_total = 0;
  float kv_usage = 0;
  std::vector<Part> sequences;  // that are part of the step
};

// Holds the state of the last step that began. Its lock is held for a copy, never for a step.
class StepBoard {
 public:
  explicit StepBoard(int32_t max_batch);

  // The sequences are those of `parts`. Allocates nothing. Engine thread.
  void post(StepState head, std::span<const StepPart> parts);
  StepState read() const;  // any thread

 private:
  mutable std::mutex mutex_;
  StepState state_;
  std::vector<StepState::Part> parts_;  // the first `count_` are of the step
  size_t count_ = 0;
};

}  // namespace llorch
