#include "engine/job_store.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace llorch {
namespace {

// A list node, an entry of the map, what the allocator adds, and the stream without its events.
constexpr size_t kJobBytes = sizeof(Job) + sizeof(Stream) + 256;

}  // namespace

const Job* JobStore::find(const std::string& id) const {
  const auto known = by_id_.find(id);
  return known == by_id_.end() ? nullptr : &*known->second;
}

JobStore::Jobs JobStore::open(std::string id, std::string fingerprint,
                              std::shared_ptr<Stream> stream) {
  Jobs opened, dropped;
  opened.push_back({std::move(id), std::move(fingerprint), std::move(stream)});
  const auto job = opened.begin();
  if (const auto known = by_id_.find(job->id); known != by_id_.end()) {
    if (known->second->running) {
      by_id_.erase(known);
    } else {
      drop(known->second, dropped);
    }
  }
  by_id_.emplace(job->id, job);
  running_.splice(running_.end(), opened);
  return dropped;
}

JobStore::Jobs JobStore::end(const std::string& id, const Stream& stream,
                             std::optional<size_t> bytes, TimePoint now) {
  Jobs dropped;
  const auto known = by_id_.find(id);
  if (known == by_id_.end() || known->second->stream.get() != &stream) {
    // Cancelled, and its id has gone to another job since.
    const auto at = std::find_if(running_.begin(), running_.end(),
                                 [&](const Job& job) { return job.stream.get() == &stream; });
    dropped.splice(dropped.end(), running_, at);
    return dropped;
  }
  const auto job = known->second;
  if (!bytes) {
    job->stream.reset();
    std::string().swap(job->fingerprint);
  }
  job->running = false;
  job->ended = now;
  job->bytes = kJobBytes + job->id.capacity() + job->fingerprint.capacity() + bytes.value_or(0);
  bytes_ += job->bytes;
  ended_.splice(ended_.end(), running_, job);
  while (bytes_ > max_bytes_) drop_oldest(dropped);
  dropped.splice(dropped.end(), expire(now));
  return dropped;
}

JobStore::Jobs JobStore::expire(TimePoint now) {
  Jobs dropped;
  while (!ended_.empty() && now - ended_.front().ended >= retention_) drop_oldest(dropped);
  return dropped;
}

void JobStore::drop(Jobs::iterator ended, Jobs& dropped) {
  bytes_ -= ended->bytes;
  by_id_.erase(ended->id);
  dropped.splice(dropped.end(), ended_, ended);
}

}  // namespace llorch
