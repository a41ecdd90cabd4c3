#include "server/job_log.h"

#include <utility>

#include "base/log.h"
#include "server/event_writer.h"

namespace llorch {

JobLog::JobLog(const Request& request)
    : job_id_(request.job_id),
      correlation_id_(request.correlation_id),
      prompt_tokens_(static_cast<int32_t>(request.prompt.size())),
      max_tokens_(request.max_tokens) {}

void JobLog::begin() {
  // No std::call_once: what throws within it (a field that finds no memory) may leave it locked.
  const std::lock_guard lock(mutex_);
  if (std::exchange(begun_, true)) return;
  log(Level::kInfo, "execute_start",
      {{"job_id", job_id_},
       {"correlation_id", correlation_id_},
       {"prompt_tokens", prompt_tokens_},
       {"max_tokens", max_tokens_}});
}

void JobLog::end(const JobSummary& job) {
  begin();
  log(Level::kInfo, "execute_end",
      {{"job_id", job_id_},
       {"correlation_id", correlation_id_},
       {"outcome", outcome_name(job.terminal)},
       {"prompt_tokens", prompt_tokens_},
       {"cached_tokens", job.cached_tokens},
       {"tokens_out", job.tokens_out},
       {"readers", job.readers},
       {"queue_ms", job.queued.count()},
       {"first_token_ms", job.to_first_token.count()},
       {"total_ms", job.total.count()}});
}

const char* outcome_name(const Event& terminal) {
  if (const auto* end = std::get_if<EndEvent>(&terminal)) return name(end->reason);
  return std::get<FailedEvent>(terminal).code;
}

}  // namespace llorch
