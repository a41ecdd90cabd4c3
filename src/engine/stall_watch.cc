#include "engine/stall_watch.h"

#include <algorithm>
#include <utility>

namespace llorch {
namespace {

constexpr int64_t kStepsToWait = 20;

int64_t nanoseconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
}

}  // namespace

StallWatch::StallWatch(std::function<TimePoint()> now, std::chrono::milliseconds timeout)
    : now_(std::move(now)), timeout_ns_(nanoseconds(timeout)) {}

int64_t StallWatch::now_ns() const { return nanoseconds(now_().time_since_epoch()); }

void StallWatch::work_begins() { busy_since_ns_ = now_ns(); }

void StallWatch::work_ends() { busy_since_ns_ = kIdle; }

void StallWatch::step_ended(TimePoint began) {
  const int64_t now = now_ns();
  last_step_ns_ = now;
  longest_step_ns_ = std::max(longest_step_ns_.load(), now - nanoseconds(began.time_since_epoch()));
}

void StallWatch::forget_steps() { longest_step_ns_ = 0; }

bool StallWatch::stalled() const {
  if (given_up_) return true;
  const int64_t busy_since = busy_since_ns_;
  if (busy_since == kIdle) return false;
  const int64_t since = std::max(busy_since, last_step_ns_.load());
  return now_ns() - since > std::max(timeout_ns_, kStepsToWait * longest_step_ns_.load());
}

}  // namespace llorch
