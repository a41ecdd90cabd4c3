#include "engine/forecast.h"

#include <algorithm>
#include <cmath>

namespace llorch {
namespace {

constexpr int32_t kChunk = 64;  // rows of a prompt that a step is asked about

std::chrono::milliseconds whole_ms(double ms) {
  constexpr double kLongest = 1e12;  // some thirty years
  return std::chrono::milliseconds(static_cast<int64_t>(std::ceil(std::min(ms, kLongest))));
}

OpenWork times(int32_t count, const OpenWork& work) {
  return {.requests = count,
          .prompts = count,
          .prompt_tokens = count * work.prompt_tokens,
          .output_tokens = count * work.output_tokens,
          .decode_reads = count * work.decode_reads,
          .kv_tokens = count * work.kv_tokens};
}

}  // namespace

void OpenWork::add(const OpenWork& other) {
  requests += other.requests;
  prompts += other.prompts;
  prompt_tokens += other.prompt_tokens;
  output_tokens += other.output_tokens;
  decode_reads += other.decode_reads;
  kv_tokens += other.kv_tokens;
}

void Forecast::begin() { next_.clear(); }

void Forecast::add(int32_t priority, const OpenWork& request) {
  auto at = std::find_if(next_.begin(), next_.end(),
                         [&](const Class& c) { return c.priority == priority; });
  if (at == next_.end()) at = next_.insert(at, {.priority = priority, .work = {}});
  at->work.add(request);
}

void Forecast::publish(const StepCost& cost) {
  const std::lock_guard lock(mutex_);
  classes_.swap(next_);
  times_ = cost.times();
  known_ = cost.known();
}

std::optional<Forecast::Times> Forecast::of(int32_t priority, const OpenWork& work,
                                            int32_t open) const {
  OpenWork all, ahead;
  StepTimes times_of_steps;
  {
    const std::lock_guard lock(mutex_);
    if (!known_) return std::nullopt;
    times_of_steps = times_;
    for (const Class& c : classes_) {
      all.add(c.work);
      if (c.priority >= priority) ahead.add(c.work);
    }
  }
  const OpenWork unseen = times(std::max(0, open - all.requests), work);
  all.add(unseen);
  ahead.add(unseen);

  // So many run at once, each holding its share of the kv cache.
  const int64_t each_holds =
      std::max<int64_t>(1, (all.kv_tokens + work.kv_tokens) / (all.requests + 1));
  const auto places =
      static_cast<int32_t>(std::clamp<int64_t>(kv_tokens_ / each_holds, 1, max_batch_));
  const int32_t others = std::min(all.requests, places - 1);
  const double each_reads = all.requests > 0 ? all.decode_reads / all.requests : 0;
  const double step = times_of_steps.of(
      {.decode_rows = 1 + others, .decode_reads = work.decode_reads + others * each_reads});
  const auto rows = static_cast<int32_t>(std::clamp<int64_t>(work.prompt_tokens, 1, kChunk));
  const double row =
      times_of_steps.of({.prefill_rows = rows, .prefill_reads = rows * work.decode_reads / 2}) /
      rows;

  // So many must end before there is a place; they share the steps with all the others.
  const int32_t before = std::max(0, ahead.requests + 1 - places);
  const auto prompts_left = static_cast<double>(ahead.prompt_tokens);
  double place = 0, shared = 0;
  if (before > 0) {
    const double output_left = static_cast<double>(ahead.output_tokens);
    place = 1.0 * before / ahead.requests * (output_left / places * step + prompts_left * row);
  } else if (ahead.prompts > 0) {
    // Longer prompts share the prefill with it while it lasts, shorter ones go before it.
    const double own = static_cast<double>(work.prompt_tokens);
    shared = ahead.prompts * std::min(prompts_left / ahead.prompts, own);
  }
  // Who decodes meanwhile has half of each step.
  const double prefill = (shared + static_cast<double>(work.prompt_tokens)) * row *
                         (others > 0 && all.requests > all.prompts ? 2 : 1);
  // And a prompt that is left then, and has a place, has as much of each step as those who decode.
  const double decode = static_cast<double>(work.output_tokens) * step;
  const OpenWork& beside = all.requests < places ? all : ahead;
  const double rest = (static_cast<double>(beside.prompt_tokens) - shared) * row;
  const double slowed = before > 0 ? 0 : std::min(decode, rest);
  return Times{whole_ms(place), whole_ms(place + prefill + decode + slowed)};
}

}  // namespace llorch
