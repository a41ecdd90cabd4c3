#include "engine/output.h"

#include <algorithm>
#include <string>
#include <utility>

namespace llorch {
namespace {

constexpr std::chrono::seconds kMetricsInterval{1};

}  // namespace

Output::Output(const Request& request, int32_t prompt_tokens, const Tokenizer& tokenizer,
               std::span<const int32_t> eos, std::shared_ptr<Stream> stream)
    : stream_(std::move(stream)),
      decoder_(tokenizer, request.stop),
      eos_(request.ignore_eos ? std::span<const int32_t>() : eos),
      prompt_tokens_(prompt_tokens),
      max_tokens_(request.max_tokens),
      wants_logprobs_(request.sampling.top_logprobs >= 0),
      seed_(request.sampling.seed) {}

void Output::start(std::chrono::system_clock::time_point at, int32_t cached_tokens) {
  stream_->push(StartedEvent{at, prompt_tokens_, cached_tokens, seed_});
}

std::optional<Event> Output::take(Sampled sampled, TimePoint now) {
  if (sampled.token < 0) {
    return FailedEvent{"INFERENCE_FAILED", "the model's logits are not finite", true};
  }
  if (!first_token_at_) {
    first_token_at_ = metrics_at_ = now;
    tokens_at_metrics_ = 1;
  }
  if (is_eos(sampled.token)) {
    std::string rest = decoder_.finish();
    if (!rest.empty()) push_token({std::move(rest), last_token_, {}, {}});
    return end(decoder_.stopped() ? StopReason::kStopSequence : StopReason::kEos, now);
  }
  last_token_ = sampled.token;
  ++tokens_out_;
  std::string text = decoder_.push(sampled.token);
  const bool last = tokens_out_ == max_tokens_;
  if (last && !decoder_.stopped()) text += decoder_.finish();
  if (wants_logprobs_) {
    push_token({std::move(text), sampled.token, sampled.logprob, std::move(sampled.top)});
  } else if (!text.empty()) {
    push_token({std::move(text), sampled.token, {}, {}});
  }
  if (decoder_.stopped()) return end(StopReason::kStopSequence, now);
  if (last) return end(StopReason::kMaxTokens, now);
  push_metrics(now);
  return std::nullopt;
}

bool Output::is_eos(int32_t token) const {
  return std::binary_search(eos_.begin(), eos_.end(), token);
}

void Output::push_token(TokenEvent event) {
  event.index = token_events_++;
  stream_->push(std::move(event));
}

void Output::push_metrics(TimePoint now) {
  const auto elapsed = now - metrics_at_;
  if (elapsed < kMetricsInterval) return;
  const float rate = static_cast<float>(tokens_out_ - tokens_at_metrics_) /
                     std::chrono::duration<float>(elapsed).count();
  metrics_at_ = now;
  tokens_at_metrics_ = tokens_out_;
  stream_->push(MetricsEvent{rate});
}

EndEvent Output::end(StopReason reason, TimePoint now) const {
  EndEvent event;
  event.reason = reason;
  if (reason == StopReason::kStopSequence) event.stop_sequence = decoder_.stopped();
  event.tokens_out = tokens_out_;
  event.decode_time = std::chrono::duration_cast<std::chrono::milliseconds>(now - *first_token_at_);
  return event;
}

}  // namespace llorch
