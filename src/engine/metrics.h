// What an engine has done so far, in figures that anyone may read at any time without a lock.
// Nothing is allocated when something is counted.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace llorch {

// How a request that the engine took can end.
enum class Outcome {
  kMaxTokens,
  kEos,
  kStopSequence,
  kCancelled,
  kTimeout,
  kVramOom,
  kInferenceFailed,
};
inline constexpr std::array<const char*, 7> kOutcomeNames = {
    "max_tokens", "eos", "stop_sequence", "cancelled", "timeout", "vram_oom", "inference_failed"};

// Of an EndEvent or a FailedEvent.
Outcome outcome_of(const Event& terminal);
inline bool ended_well(Outcome outcome) { return outcome <= Outcome::kStopSequence; }

class Counter {
 public:
  void add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// One thread observes, any thread reads.
class Histogram {
 public:
  // Upper bounds, ascending; what is above them all has a bucket of its own.
  explicit Histogram(std::span<const double> bounds);

  void observe(double value);

  const std::vector<double>& bounds() const { return bounds_; }
  // [bounds + 1], each alone. Their sum is the count: a count of its own could differ in one read.
  const std::vector<std::atomic<uint64_t>>& buckets() const { return buckets_; }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> buckets_;
  std::atomic<double> sum_{0};
};

// How many requests are open, and how many of them run: both as of one moment.
class OpenRequests {
 public:
  struct Figures {
    int running = 0, waiting = 0;
  };
  void arrived() { both_.fetch_add(kOne); }  // any thread; it waits
  // [engine thread] So many of them run now, and `left` have gone.
  void update(int running, int left);
  Figures read() const;

 private:
  static constexpr uint64_t kOne = uint64_t{1} << 32;
  std::atomic<uint64_t> both_{0};  // open above, running below
  int running_ = 0;                // as both_ has it; the engine thread's
};

// The moments of one request. Engine thread only, but for `arrived`.
struct RequestTimes {
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint arrived, scheduled;
  TimePoint first_result, last_result;  // of a step that gave it a token or its end
  bool has_result = false;
};

// The engine thread writes, anyone reads. Times in seconds unless the name says otherwise. The
// histograms named request_ or e2e_, and inference_ms, have the requests that ended well.
struct EngineMetrics {
  using TimePoint = RequestTimes::TimePoint;

  explicit EngineMetrics(int32_t context);

  // A request is part of a step for the first time.
  void scheduled(RequestTimes& times, int32_t prompt_tokens, TimePoint now);
  // A step brought it `tokens` tokens; 0: none but its end.
  void took(RequestTimes& times, int32_t tokens, TimePoint now);
  void finished(const RequestTimes& times, Outcome outcome, int32_t prompt_tokens,
                int32_t generated, TimePoint now);
  // A step computed so many drafts of a sequence, of which so many were right.
  void drafted(int32_t tokens, int32_t right);

  std::array<Counter, kOutcomeNames.size()> outcomes;
  Counter steps, tokens_in, tokens_out;
  Counter drafts, draft_tokens, right_draft_tokens;  // drafts: times that a sequence had some
  Histogram step_tokens;  // computed by one step, without drafts that were wrong
  Histogram time_to_first_token, inter_token_latency;
  Histogram e2e_latency, queue_time, prefill_time, decode_time, inference_time, inference_ms;
  Histogram request_time_per_token;
  Histogram request_prompt_tokens, request_generation_tokens;
};

}  // namespace llorch
