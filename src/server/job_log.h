// The two lines that one generation leaves in the log, however many read it.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "engine/request.h"

namespace llorch {

// Begun by the thread that submits, ended by the engine's: the lines come in that order.
class JobLog {
 public:
  explicit JobLog(const Request& request);

  void begin();                     // `execute_start`
  void end(const JobSummary& job);  // `execute_end`

 private:
  const std::string job_id_, correlation_id_;
  const int32_t prompt_tokens_, max_tokens_;
  std::mutex mutex_;  // held for a line
  bool begun_ = false;
};

// A StopReason's name or a FailedEvent's code.
const char* outcome_name(const Event& terminal);

}  // namespace llorch
