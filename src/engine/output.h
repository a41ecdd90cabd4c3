// What one request is told: sampled tokens into text and events, and when the output is complete.
// Knows no step, block or device.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "engine/request.h"
#include "engine/stream.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

// Belongs to one sequence; `tokenizer` and `eos` must outlive it.
class Output {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // `eos` is ascending. Of `request` only what is wanted is read: prompt_tokens is given apart.
  Output(const Request& request, int32_t prompt_tokens, const Tokenizer& tokenizer,
         std::span<const int32_t> eos, std::shared_ptr<Stream> stream);

  Stream& stream() const { return *stream_; }
  int32_t tokens_out() const { return tokens_out_; }

  // The request's first tokens are about to be computed, all but `cached_tokens` of the prompt.
  void start(std::chrono::system_clock::time_point at, int32_t cached_tokens);
  // Takes the model's next token and pushes what it brings. Once the output is complete it gives
  // the terminal event, not pushed, so that the caller can free what the request holds before.
  std::optional<Event> take(Sampled sampled, TimePoint now);

 private:
  bool is_eos(int32_t token) const;
  void push_token(TokenEvent event);
  void push_metrics(TimePoint now);
  EndEvent end(StopReason reason, TimePoint now) const;

  std::shared_ptr<Stream> stream_;
  StreamDecoder decoder_;
  std::span<const int32_t> eos_;
  const int32_t prompt_tokens_, max_tokens_;
  const bool wants_logprobs_;
  const uint64_t seed_;
  uint32_t token_events_ = 0;
  int32_t tokens_out_ = 0, tokens_at_metrics_ = 0;
  int32_t last_token_ = 0;
  std::optional<TimePoint> first_token_at_;
  TimePoint metrics_at_;
};

}  // namespace llorch
