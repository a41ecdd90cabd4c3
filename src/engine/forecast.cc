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

}  // namespace

void Forecast::publish(const StepCost& cost, const OpenWork& work) {
  for (size_t i = 0; i < ms_.size(); ++i) ms_[i] = cost.times().ms[i];
  known_ = cost.known();
  requests_ = work.requests;
  prompts_ = work.prompts;
  prompt_tokens_ = work.prompt_tokens;
  output_tokens_ = work.output_tokens;
  decode_reads_ = work.decode_reads;
}

std::optional<Forecast::Times> Forecast::of(int32_t prompt_tokens, int32_t max_tokens,
                                            const StepLoad& own, int32_t open) const {
  if (!known_) return std::nullopt;
  StepTimes times;
  for (size_t i = 0; i < ms_.size(); ++i) times.ms[i] = ms_[i];
  // Those that the engine has not seen yet count as being like this one.
  const int32_t seen = requests_, unseen = std::max(0, open - seen);
  open = seen + unseen;
  const double prompts = prompts_ + unseen;
  const double prompts_left = static_cast<double>(prompt_tokens_) + 1.0 * unseen * prompt_tokens;
  const double output_left = static_cast<double>(output_tokens_) + 1.0 * unseen * max_tokens;

  const int32_t others = std::min(open, max_batch_ - 1);
  const double each_reads = seen > 0 ? decode_reads_ / seen : own.decode_reads;
  const double step =
      times.of({.decode_rows = 1 + others, .decode_reads = own.decode_reads + others * each_reads});
  const int32_t rows = std::min(kChunk, prompt_tokens);
  const double row =
      times.of({.prefill_rows = rows, .prefill_reads = rows * own.decode_reads / 2}) / rows;

  // So many must end before there is a place; they share the steps with all the others.
  const int32_t before = std::max(0, open + 1 - max_batch_);
  double place = 0, ahead = 0;
  if (before > 0) {
    place = 1.0 * before / open * (output_left / max_batch_ * step + prompts_left * row);
  } else if (prompts > 0) {
    // Longer prompts share the prefill with it while it lasts, shorter ones go before it.
    ahead = prompts * std::min(prompts_left / prompts, 1.0 * prompt_tokens);
  }
  // Who decodes meanwhile has half of each step.
  const double prefill = (ahead + prompt_tokens) * row * (open > prompts ? 2 : 1);
  // And a prompt that is left then has as much of each step as those who decode.
  const double decode = max_tokens * step;
  const double beside = before > 0 ? 0 : std::min(decode, (prompts_left - ahead) * row);
  return Times{whole_ms(place), whole_ms(place + prefill + decode + beside)};
}

}  // namespace llorch
