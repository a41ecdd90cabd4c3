// Which jobs are known by their id: those that run, and those that ended, for repeats and for
// cancels that come late. Not thread-safe: the intake's lock guards it.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/stream.h"

namespace llorch {

struct Job {
  std::string id;
  std::string fingerprint;         // of what was asked; empty: nothing is the same as this
  std::shared_ptr<Stream> stream;  // null if it ended and its events are not kept
  bool running = true;
  std::chrono::steady_clock::time_point ended = {};
  size_t bytes = 0;  // that it takes now that it has ended
};

// What is dropped comes back, to be destroyed without the lock.
class JobStore {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Jobs = std::list<Job>;

  // Jobs that ended are known for `retention`, or until newer ones need the `max_bytes`.
  JobStore(std::chrono::milliseconds retention, size_t max_bytes)
      : retention_(retention), max_bytes_(max_bytes) {}

  // Null if it is not known; valid until the store changes.
  const Job* find(const std::string& id) const;
  const Jobs& running() const { return running_; }

  // From here on the id is this job's. Whatever had it has ended, or is about to: was cancelled.
  [[nodiscard]] Jobs open(std::string id, std::string fingerprint, std::shared_ptr<Stream> stream);
  // A running job has ended. `bytes`: what its events take; none: they are not kept.
  [[nodiscard]] Jobs end(const std::string& id, const Stream& stream, std::optional<size_t> bytes,
                         TimePoint now);
  [[nodiscard]] Jobs expire(TimePoint now);

 private:
  void drop_oldest(Jobs& dropped) { drop(ended_.begin(), dropped); }
  void drop(Jobs::iterator ended, Jobs& dropped);

  const std::chrono::milliseconds retention_;
  const size_t max_bytes_;
  Jobs running_, ended_;  // the oldest first
  std::unordered_map<std::string_view, Jobs::iterator> by_id_;
  size_t bytes_ = 0;  // of all that ended
};

}  // namespace llorch
