// Whether steps still end while there is work. Lock-free, so that health never waits for a step.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

namespace llorch {

class StallWatch {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  StallWatch(std::function<TimePoint()> now, std::chrono::milliseconds timeout);

  // From idle to busy, and back. The caller orders the two.
  void work_begins();
  void work_ends();
  void step_ended(TimePoint began);  // [engine thread]
  void forget_steps();               // [engine thread]
  // Busy, and no step ended for max(timeout, 20 x the longest step so far); or given up. Any
  // thread.
  bool stalled() const;
  // Streams have been ended for it: a step that ends after all changes nothing. Any thread.
  void give_up() { given_up_ = true; }

 private:
  static constexpr int64_t kIdle = INT64_MIN;
  int64_t now_ns() const;

  const std::function<TimePoint()> now_;
  const int64_t timeout_ns_;
  std::atomic<int64_t> busy_since_ns_{kIdle}, last_step_ns_{kIdle}, longest_step_ns_{0};
  std::atomic<bool> given_up_{false};
};

}  // namespace llorch
