// The hand-off from any thread to the engine thread: the queue of new sequences, and which jobs are
// known. Knows no step, block or device.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/forecast.h"
#include "engine/job_store.h"
#include "engine/sequence.h"
#include "engine/stall_watch.h"

namespace llorch {

class Intake {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // At most `capacity` jobs are open at once. `watch` is told when work begins and ends, and
  // `requests` of every job that is opened.
  Intake(size_t capacity, JobStore jobs, StallWatch& watch, OpenRequests& requests)
      : capacity_(capacity), watch_(watch), requests_(requests), jobs_(std::move(jobs)) {}

  // Any thread.

  // A reader of the job's events. A repeat of a job that runs or is kept reads that one's, at any
  // time; else the job is opened. Throws Error{kConflict} if its id is another's that runs,
  // kNotFound if it is to be resumed and is not there, kBadRequest if from an event on that is not
  // there; and where a job would be opened: kUnavailable after close() or stop() and while
  // stalled, Overloaded if too many are open or `forecast` is later than the request's deadline.
  std::shared_ptr<Reader> submit(std::unique_ptr<Sequence> sequence,
                                 const std::shared_ptr<Stream>& stream, std::function<void()> wake,
                                 TimePoint now, const std::optional<Forecast::Times>& forecast);
  // Cancels an open job. False if the id is neither open nor that of a job that is known to have
  // ended.
  bool cancel(const std::string& job_id, TimePoint now);
  void expire(TimePoint now);  // forgets jobs that ended long enough ago
  std::vector<std::shared_ptr<Stream>> open_streams() const;
  void close();  // no job is opened any more
  void stop();   // close(), and wait() returns
  bool wait_drained(TimePoint deadline);

  // Engine thread.

  // Appends what came since the last call, oldest first.
  void take(std::vector<std::unique_ptr<Sequence>>& to);
  // Blocks until something came or stop().
  void wait();
  bool stopping() const { return stopping_; }
  // A job ends in two parts: first it is no longer open, then, once its stream has been told, it no
  // longer counts for wait_drained().
  void release(const std::string& job_id, Stream& stream, const Event& terminal, TimePoint now);
  void left();

 private:
  std::shared_ptr<Reader> attach(const Request& request, const std::function<void()>& wake);

  const size_t capacity_;
  StallWatch& watch_;
  OpenRequests& requests_;
  mutable std::mutex mutex_;  // held for a few lines, never for a step
  std::condition_variable work_, drained_;
  std::vector<std::unique_ptr<Sequence>> incoming_;
  JobStore jobs_;
  size_t open_ = 0;    // jobs that were not released
  size_t untold_ = 0;  // jobs that have not left()
  bool closed_ = false;
  std::atomic<bool> stopping_{false};
};

}  // namespace llorch
