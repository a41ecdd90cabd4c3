#include "engine/endings.h"

#include <algorithm>
#include <chrono>
#include <string>

namespace llorch {

FailedEvent cancelled(CancelCause cause) {
  switch (cause) {
    case CancelCause::kNone:
    case CancelCause::kClient:
      return {"CANCELLED", "cancelled by the client", false};
    case CancelCause::kDisconnected:
      return {"CANCELLED", "the client has disconnected", false};
    case CancelCause::kShutdown:
      return {"CANCELLED", "the worker is shutting down", true};
    case CancelCause::kSlowReader:
      return {"INFERENCE_FAILED", "the reader is too slow for its events", true};
    case CancelCause::kStalled:
      return {"INFERENCE_FAILED", "the engine is stalled", true};
  }
  return {"CANCELLED", "", false};
}

FailedEvent no_memory() { return {"VRAM_OOM", "out of memory", true}; }

JobSummary summary(const Sequence& sequence, const Event& terminal,
                   std::chrono::steady_clock::time_point now) {
  const auto since_arrival = [&](std::chrono::steady_clock::time_point then) {
    return then == std::chrono::steady_clock::time_point()
               ? std::chrono::milliseconds(0)
               : std::chrono::duration_cast<std::chrono::milliseconds>(then -
                                                                       sequence.times.arrived);
  };
  return {.terminal = terminal,
          .cached_tokens = std::max(sequence.cached_tokens, 0),
          .tokens_out = sequence.output->tokens_out(),
          .queued = since_arrival(sequence.times.scheduled),
          .to_first_token = since_arrival(sequence.times.first_result),
          .total = since_arrival(now),
          .readers = sequence.output->stream().readers_so_far()};
}

FailedEvent timed_out(const Sequence& sequence) {
  if (sequence.deadline == sequence.request.deadline) {
    return {"TIMEOUT", "not finished by its deadline", true};
  }
  const auto ms = sequence.request.timeout.count();
  return {"TIMEOUT", "not finished within " + std::to_string(ms) + " ms", true};
}

}  // namespace llorch
