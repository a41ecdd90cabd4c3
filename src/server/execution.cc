#include "server/execution.h"

#include <new>

#include "base/log.h"
#include "base/memory_reserve.h"

namespace llorch {

Execution::Execution(std::shared_ptr<Reader> reader, const Request& request,
                     std::unique_ptr<EventWriter> writer, std::chrono::milliseconds keepalive)
    : reader_(std::move(reader)),
      writer_(std::move(writer)),
      job_id_(request.job_id),
      correlation_id_(request.correlation_id),
      keepalive_(keepalive),
      prompt_tokens_(static_cast<int32_t>(request.prompt.size())) {
  log(Level::kInfo, "execute_start",
      {{"job_id", job_id_},
       {"correlation_id", correlation_id_},
       {"prompt_tokens", prompt_tokens_},
       {"max_tokens", request.max_tokens}});
}

Execution::~Execution() {
  log(Level::kInfo, "execute_end",
      {{"job_id", job_id_},
       {"correlation_id", correlation_id_},
       {"outcome", outcome_},
       {"prompt_tokens", prompt_tokens_},
       {"cached_tokens", cached_tokens_},
       {"tokens_out", tokens_out_},
       {"queue_ms", ms_until(started_)},
       {"first_token_ms", ms_until(first_token_)},
       {"total_ms", ms_until(Clock::now())}});
}

std::string Execution::take() {
  std::string bytes;
  if (!out_of_memory_) {
    try {
      const MayFail may;
      write_waiting(bytes);
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;  // an event is lost
      ended_ = false;
      reader_->leave();
    }
  }
  if (!out_of_memory_ || ended_ || !bytes.empty()) return bytes;
  const Event end = FailedEvent{"VRAM_OOM", "out of memory", true};
  note(end);
  return writer_->write(end);
}

void Execution::write_waiting(std::string& bytes) {
  constexpr size_t kEnough = 64 * 1024;
  while (!ended_ && bytes.size() < kEnough) {
    const auto event = reader_->next();
    if (!event) break;
    note(*event);
    bytes += writer_->write(*event);
  }
}

void Execution::note(const Event& event) {
  ended_ = is_terminal(event);
  if (const auto* started = std::get_if<StartedEvent>(&event)) {
    started_ = Clock::now();
    cached_tokens_ = started->cached_tokens;
  } else if (std::holds_alternative<TokenEvent>(event)) {
    if (tokens_out_ == 0) first_token_ = Clock::now();
    ++tokens_out_;  // until the end tells the number of model tokens
  } else if (const auto* end = std::get_if<EndEvent>(&event)) {
    outcome_ = name(end->reason);
    tokens_out_ = end->tokens_out;
  } else if (const auto* failed = std::get_if<FailedEvent>(&event)) {
    outcome_ = failed->code;
  }
}

// From submission; 0 for what has not happened.
int64_t Execution::ms_until(Clock::time_point then) const {
  if (then == Clock::time_point()) return 0;
  return std::chrono::duration_cast<std::chrono::milliseconds>(then - submitted_).count();
}

}  // namespace llorch
