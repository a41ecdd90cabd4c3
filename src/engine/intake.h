// The hand-off from any thread to the engine thread: the queue of new sequences, and which jobs are
// open. Knows no step, block or device.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"
#include "engine/stall_watch.h"

namespace llorch {

class Intake {
 public:
  // At most `capacity` jobs are open at once. `watch` is told when work begins and ends, and
  // `requests` of every job that is opened.
  Intake(size_t capacity, StallWatch& watch, OpenRequests& requests)
      : capacity_(capacity), watch_(watch), requests_(requests) {}

  // Any thread.

  // Opens a job. Throws Error{kUnavailable} after close() or stop() and while stalled, kConflict if
  // the job id is open, kOverloaded if too many are.
  void submit(std::unique_ptr<Sequence> sequence, std::shared_ptr<Stream> stream);
  // Sets the flag of an open job. False if the id is neither open nor among the last ended.
  bool cancel(const std::string& job_id);
  std::vector<std::shared_ptr<Stream>> open_streams() const;
  void close();  // no job is opened any more
  void stop();   // close(), and wait() returns
  bool wait_drained(std::chrono::steady_clock::time_point deadline);

  // Engine thread.

  // Appends what came since the last call, oldest first.
  void take(std::vector<std::unique_ptr<Sequence>>& to);
  // Blocks until something came or stop().
  void wait();
  bool stopping() const { return stopping_; }
  // A job ends in two parts: first its id is free again, then, once its stream has been told, it no
  // longer counts for wait_drained().
  void release(const std::string& job_id);
  void left();
  void forget_ended();

 private:
  const size_t capacity_;
  StallWatch& watch_;
  OpenRequests& requests_;
  mutable std::mutex mutex_;  // held for a few lines, never for a step
  std::condition_variable work_, drained_;
  std::vector<std::unique_ptr<Sequence>> incoming_;
  std::unordered_map<std::string, std::shared_ptr<Stream>> jobs_;
  std::deque<std::string> ended_;  // the last job ids, for a cancel that comes late
  size_t untold_ = 0;              // jobs that have not left()
  bool closed_ = false;
  std::atomic<bool> stopping_{false};
};

}  // namespace llorch
