// How a request ends that does not end well, in words, and what is told of each that has ended.
#pragma once

#include <chrono>

#include "engine/request.h"
#include "engine/sequence.h"
#include "engine/stream.h"

namespace llorch {

FailedEvent cancelled(CancelCause cause);
FailedEvent no_memory();
FailedEvent timed_out(const Sequence& sequence);
JobSummary summary(const Sequence& sequence, const Event& terminal,
                   std::chrono::steady_clock::time_point now);

}  // namespace llorch
