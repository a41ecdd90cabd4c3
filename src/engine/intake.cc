#include "engine/intake.h"

#include <iterator>
#include <utility>

#include "base/error.h"

namespace llorch {

namespace {

// Throws if the request is not likely to be finished in the time that is left.
void check_deadline(std::chrono::steady_clock::duration left,
                    const std::optional<Forecast::Times>& forecast) {
  const auto left_ms = std::chrono::floor<std::chrono::milliseconds>(left);
  if (left_ms.count() <= 0) throw Overloaded("the deadline has passed", {});
  if (!forecast || forecast->finish <= left_ms) return;
  throw Overloaded("the deadline is in " + std::to_string(left_ms.count()) +
                       " ms, and the request would take about " +
                       std::to_string(forecast->finish.count()) + " ms",
                   forecast->place);
}

}  // namespace

// With the lock held. Null if there is nothing to attach to.
std::shared_ptr<Reader> Intake::attach(const Request& request, const std::function<void()>& wake) {
  const Job* const job = jobs_.find(request.job_id);
  if (!job || !job->stream || job->stream->is_cancelled()) return nullptr;
  if (request.fingerprint.empty() || request.fingerprint != job->fingerprint) {
    if (!job->running) return nullptr;
    throw Error(ErrorCode::kConflict, "job_id '" + job->id + "' is running another request");
  }
  if (!request.last_event_id) return job->stream->attach(wake);
  if (*request.last_event_id >= job->stream->size()) {
    throw Error(ErrorCode::kBadRequest,
                "event " + std::to_string(*request.last_event_id) + " has not been sent yet");
  }
  return job->stream->attach(wake, *request.last_event_id + 1);
}

std::shared_ptr<Reader> Intake::submit(std::unique_ptr<Sequence> sequence,
                                       const std::shared_ptr<Stream>& stream,
                                       std::function<void()> wake, TimePoint now,
                                       const std::optional<Forecast::Times>& forecast) {
  const Request& request = sequence->request;
  JobStore::Jobs expired, replaced;  // go after the lock
  const std::lock_guard lock(mutex_);
  expired = jobs_.expire(now);
  if (auto reader = attach(request, wake)) return reader;
  if (request.last_event_id) {
    throw Error(ErrorCode::kNotFound, "there is no such job to resume");
  }
  if (closed_) throw Error(ErrorCode::kUnavailable, "the worker is shutting down");
  if (watch_.stalled()) throw Error(ErrorCode::kUnavailable, "the engine is stalled");
  const auto place = forecast ? forecast->place : std::chrono::milliseconds(0);
  if (open_ >= capacity_) throw Overloaded("the queue is full", place);
  if (request.deadline) check_deadline(*request.deadline - now, forecast);
  incoming_.reserve(incoming_.size() + 1);  // so that a job which is open is also queued
  auto reader = stream->attach(std::move(wake));
  replaced = jobs_.open(request.job_id, request.fingerprint, stream);
  incoming_.push_back(std::move(sequence));
  ++open_;
  requests_.arrived();
  if (untold_++ == 0) watch_.work_begins();
  work_.notify_one();
  return reader;
}

bool Intake::cancel(const std::string& job_id, TimePoint now) {
  JobStore::Jobs expired;
  const std::lock_guard lock(mutex_);
  expired = jobs_.expire(now);
  const Job* const job = jobs_.find(job_id);
  if (job && job->running) job->stream->cancel(CancelCause::kClient);
  return job != nullptr;
}

void Intake::expire(TimePoint now) {
  JobStore::Jobs expired;
  const std::lock_guard lock(mutex_);
  expired = jobs_.expire(now);
}

std::vector<std::shared_ptr<Stream>> Intake::open_streams() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Stream>> streams;
  for (const Job& job : jobs_.running()) streams.push_back(job.stream);
  return streams;
}

void Intake::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void Intake::stop() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  stopping_ = true;
  work_.notify_one();
}

bool Intake::wait_drained(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  return drained_.wait_until(lock, deadline, [&] { return untold_ == 0; });
}

void Intake::take(std::vector<std::unique_ptr<Sequence>>& to) {
  const std::lock_guard lock(mutex_);
  std::move(incoming_.begin(), incoming_.end(), std::back_inserter(to));
  incoming_.clear();
}

void Intake::wait() {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [&] { return !incoming_.empty() || stopping_; });
}

void Intake::release(const std::string& job_id, Stream& stream, const Event& terminal,
                     TimePoint now) {
  JobStore::Jobs dropped;
  const std::lock_guard lock(mutex_);
  dropped = jobs_.end(job_id, stream, stream.settle(terminal), now);
  --open_;
}

void Intake::left() {
  const std::lock_guard lock(mutex_);
  CHECK(untold_ > 0);
  if (--untold_ > 0) return;
  watch_.work_ends();
  drained_.notify_all();
}

}  // namespace llorch
