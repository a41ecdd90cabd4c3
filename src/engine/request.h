// What a client asks for and what it is told, without HTTP or JSON.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ops/backend.h"

namespace llorch {

struct JobSummary;

struct Request {
  std::string job_id, correlation_id;
  std::vector<int32_t> prompt;  // token ids; not empty
  int32_t max_tokens = 0;       // prompt and this fit the context
  bool open_ended = false;  // max_tokens is but what the context leaves: nobody asked for so many
  Sampling sampling;        // seed set; index and history are the engine's
  std::vector<std::string> stop;
  bool ignore_eos = false;
  // The answer leaves in one piece, so no reader can fall behind: max_tokens bounds its events.
  bool in_one_piece = false;
  std::chrono::milliseconds timeout{0};  // from submission; 0: none
  // When the client stops waiting: refused if it is not likely to be met.
  std::optional<std::chrono::steady_clock::time_point> deadline;
  int32_t priority = 0;  // the higher goes first

  // Of all that a client asked for under its job id: a repeat has the same one, and gets the same
  // events. Empty: there are no repeats, whoever asks.
  std::string fingerprint;
  bool resumable = false;  // it goes on for EngineOptions::resume_grace without readers
  // Events are wanted from the one after this on, of a job that is there already.
  std::optional<uint64_t> last_event_id;
  // Told once, by the engine thread, just before the job's last event is; must not wait.
  std::function<void(const JobSummary&)> on_end;
};

enum class StopReason { kMaxTokens, kEos, kStopSequence };

struct StartedEvent {
  std::chrono::system_clock::time_point at;
  int32_t prompt_tokens = 0, cached_tokens = 0;
  uint64_t seed = 0;
};
struct TokenEvent {
  std::string text;  // whole UTF-8; empty only if logprobs are wanted
  int32_t id = 0;
  // If wanted; but text that was held back until an EOS comes in an event of its own without one,
  // so that each model token has exactly one event with a logprob.
  std::optional<float> logprob;
  std::vector<TokenLogprob> top;
  uint32_t index = 0;  // among the token events
};
struct MetricsEvent {
  float tokens_per_sec = 0;
};
struct EndEvent {
  StopReason reason = StopReason::kMaxTokens;
  std::optional<std::string> stop_sequence;
  int32_t tokens_out = 0;
  std::chrono::milliseconds decode_time{0};  // from the first token's result to the last's
  std::optional<double> energy_j = {};       // none: the device has no meter
};
struct FailedEvent {
  const char* code = "";  // CANCELLED, TIMEOUT, VRAM_OOM, INFERENCE_FAILED
  std::string message;
  bool retriable = true;
};
using Event = std::variant<StartedEvent, TokenEvent, MetricsEvent, EndEvent, FailedEvent>;

// A job as a whole, once it is over. A time that was not reached is 0.
struct JobSummary {
  const Event& terminal;
  int32_t cached_tokens = 0, tokens_out = 0;
  std::chrono::milliseconds queued{0}, to_first_token{0}, total{0};
  int readers = 0;  // that it had, one after the other or at once
};

inline bool is_terminal(const Event& event) {
  return std::holds_alternative<EndEvent>(event) || std::holds_alternative<FailedEvent>(event);
}

}  // namespace llorch
