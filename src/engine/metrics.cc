#include "engine/metrics.h"

#include <algorithm>
#include <string_view>
#include <variant>

namespace llorch {
namespace {

// Bounds as vLLM has them (vllm/v1/metrics/loggers.py), so that its dashboards and what picks
// endpoints by it read ours alike.
constexpr double kFirstTokenSeconds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                         0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                         20,    40,    80,   160,  640,  2560};
constexpr double kTokenSeconds[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                    0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
constexpr double kRequestSeconds[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
constexpr double kStepTokens[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
constexpr double kInferenceMs[] = {10,   25,    50,    100,   250,    500,    1000,  2500,
                                   5000, 10000, 30000, 60000, 120000, 300000, 600000};

// 1, 2, 5, 10, 20, … up to `most`.
std::vector<double> one_two_five(int32_t most) {
  std::vector<double> bounds;
  for (int64_t decade = 1;; decade *= 10) {
    for (const int64_t digit : {1, 2, 5}) {
      if (digit * decade > most) return bounds;
      bounds.push_back(static_cast<double>(digit * decade));
    }
  }
}

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

Outcome outcome_of(const Event& terminal) {
  if (const auto* end = std::get_if<EndEvent>(&terminal)) {
    switch (end->reason) {
      case StopReason::kMaxTokens:
        return Outcome::kMaxTokens;
      case StopReason::kEos:
        return Outcome::kEos;
      case StopReason::kStopSequence:
        return Outcome::kStopSequence;
    }
  }
  const std::string_view code = std::get<FailedEvent>(terminal).code;
  if (code == "CANCELLED") return Outcome::kCancelled;
  if (code == "TIMEOUT") return Outcome::kTimeout;
  if (code == "VRAM_OOM") return Outcome::kVramOom;
  return Outcome::kInferenceFailed;
}

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()), buckets_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  buckets_[static_cast<size_t>(at)].fetch_add(1, std::memory_order_relaxed);
  // One thread writes, so that no exchange is needed.
  sum_.store(sum_.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

void OpenRequests::update(int running, int left) {
  // In one addition. It may wrap around, as does the sum.
  const int64_t change = (running - running_) - static_cast<int64_t>(left) * (int64_t{1} << 32);
  running_ = running;
  both_.fetch_add(static_cast<uint64_t>(change));
}

OpenRequests::Figures OpenRequests::read() const {
  const uint64_t both = both_.load();
  const int running = static_cast<int>(both & (kOne - 1));
  return {running, static_cast<int>(both >> 32) - running};
}

EngineMetrics::EngineMetrics(int32_t context)
    : step_tokens(kStepTokens),
      time_to_first_token(kFirstTokenSeconds),
      inter_token_latency(kTokenSeconds),
      e2e_latency(kRequestSeconds),
      queue_time(kRequestSeconds),
      prefill_time(kRequestSeconds),
      decode_time(kRequestSeconds),
      inference_time(kRequestSeconds),
      inference_ms(kInferenceMs),
      request_time_per_token(kTokenSeconds),
      request_prompt_tokens(one_two_five(context)),
      request_generation_tokens(one_two_five(context)) {}

void EngineMetrics::scheduled(RequestTimes& times, int32_t prompt_tokens, TimePoint now) {
  times.scheduled = now;
  tokens_in.add(static_cast<uint64_t>(prompt_tokens));
}

void EngineMetrics::took(RequestTimes& times, int32_t tokens, TimePoint now) {
  tokens_out.add(static_cast<uint64_t>(tokens));
  for (int32_t i = 0; i < tokens; ++i) {
    if (times.has_result || i > 0) {
      // As its reader sees them: those of one step come together.
      inter_token_latency.observe(i == 0 ? seconds(now - times.last_result) : 0);
    } else {
      time_to_first_token.observe(seconds(now - times.arrived));
    }
  }
  if (!times.has_result) times.first_result = now;
  times.has_result = true;
  times.last_result = now;
}

void EngineMetrics::drafted(int32_t tokens, int32_t right) {
  if (tokens == 0) return;
  drafts.add();
  draft_tokens.add(static_cast<uint64_t>(tokens));
  right_draft_tokens.add(static_cast<uint64_t>(right));
}

void EngineMetrics::finished(const RequestTimes& times, Outcome outcome, int32_t prompt_tokens,
                             int32_t generated, TimePoint now) {
  outcomes[static_cast<size_t>(outcome)].add();
  if (!ended_well(outcome)) return;
  const double inference = seconds(times.last_result - times.scheduled);
  const double decode = seconds(times.last_result - times.first_result);
  e2e_latency.observe(seconds(now - times.arrived));
  queue_time.observe(seconds(times.scheduled - times.arrived));
  prefill_time.observe(seconds(times.first_result - times.scheduled));
  decode_time.observe(decode);
  inference_time.observe(inference);
  inference_ms.observe(inference * 1000);
  request_time_per_token.observe(generated > 1 ? decode / (generated - 1) : 0);
  request_prompt_tokens.observe(prompt_tokens);
  request_generation_tokens.observe(generated);
}

}  // namespace llorch
