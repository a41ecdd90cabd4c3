// What a client asks for and what it is told, without HTTP or JSON: the two ends of the hand-off
// between the I/O threads and the engine thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ops/backend.h"

namespace llorch {

struct Request {
  std::string job_id, correlation_id;
  std::vector<int32_t> prompt;  // token ids; not empty
  int32_t max_tokens = 0;       // prompt and this fit the context
  Sampling sampling;            // seed set; index and history are the engine's
  std::vector<std::string> stop;
  bool ignore_eos = false;
  // The answer leaves in one piece, so no reader can fall behind: max_tokens bounds its events.
  bool in_one_piece = false;
  std::chrono::milliseconds timeout{0};  // from submission; 0: none
};

enum class StopReason { kMaxTokens, kEos, kStopSequence };

struct StartedEvent {
  std::chrono::system_clock::time_point at;
  int32_t prompt_tokens = 0, cached_tokens = 0;
};
struct TokenEvent {
  std::string text;  // whole UTF-8; empty only if logprobs are wanted
  int32_t id = 0;
  // If wanted; but text that was held back until an EOS comes in an event of its own without one,
  // so that each model token has exactly one event with a logprob.
  std::optional<float> logprob;
  std::vector<TokenLogprob> top;
};
struct MetricsEvent {
  float tokens_per_sec = 0;
};
struct EndEvent {
  StopReason reason = StopReason::kMaxTokens;
  std::optional<std::string> stop_sequence;
  int32_t tokens_out = 0;
  std::chrono::milliseconds decode_time{0};  // from the first token's result to the last's
};
struct FailedEvent {
  const char* code = "";  // CANCELLED, TIMEOUT, VRAM_OOM, INFERENCE_FAILED
  std::string message;
  bool retriable = true;
};
using Event = std::variant<StartedEvent, TokenEvent, MetricsEvent, EndEvent, FailedEvent>;

// Why a request was ended from outside; the first cause wins.
enum class CancelCause : int { kNone, kClient, kDisconnected, kShutdown, kSlowReader, kStalled };

// One request's way back: a bounded queue of events from the engine thread to one reader, and a
// cancel flag the other way. Started, then tokens and metrics, then exactly one end or failure.
class Stream {
 public:
  explicit Stream(size_t capacity) : capacity_(capacity) {}

  // Reader's side. `wake` is called from the engine thread, with no lock held, whenever a queue
  // that was empty has an event; it must only post. Set it before the request is submitted.
  void on_event(std::function<void()> wake) { wake_ = std::move(wake); }
  std::optional<Event> next();
  // The engine looks before each step, and it steps as long as any request is open.
  void cancel(CancelCause cause);

  // Engine's side. False if the reader is `capacity` events behind or the stream has ended: the
  // event is not queued. A terminal event has room always, but once: what comes after it is
  // dropped.
  bool push(Event event);
  CancelCause cancelled() const { return cancel_.load(std::memory_order_acquire); }

 private:
  const size_t capacity_;
  std::function<void()> wake_;
  std::mutex mutex_;  // held for a move of one event
  std::deque<Event> events_;
  bool ended_ = false;
  std::atomic<CancelCause> cancel_{CancelCause::kNone};
};

}  // namespace llorch
