#include "engine/intake.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

constexpr size_t kEndedJobs = 4096;

}  // namespace

void Intake::submit(std::unique_ptr<Sequence> sequence, std::shared_ptr<Stream> stream) {
  const std::string& job_id = sequence->request.job_id;
  const std::lock_guard lock(mutex_);
  if (closed_) throw Error(ErrorCode::kUnavailable, "the worker is shutting down");
  if (watch_.stalled()) throw Error(ErrorCode::kUnavailable, "the engine is stalled");
  if (jobs_.contains(job_id)) {
    throw Error(ErrorCode::kConflict, "job_id '" + job_id + "' is already running");
  }
  if (jobs_.size() >= capacity_) throw Error(ErrorCode::kOverloaded, "the queue is full");
  incoming_.reserve(incoming_.size() + 1);  // so that a job which is open is also queued
  jobs_.emplace(job_id, std::move(stream));
  incoming_.push_back(std::move(sequence));
  requests_.arrived();
  if (untold_++ == 0) watch_.work_begins();
  work_.notify_one();
}

bool Intake::cancel(const std::string& job_id) {
  const std::lock_guard lock(mutex_);
  const auto job = jobs_.find(job_id);
  if (job == jobs_.end()) {
    return std::find(ended_.begin(), ended_.end(), job_id) != ended_.end();
  }
  job->second->cancel(CancelCause::kClient);
  return true;
}

std::vector<std::shared_ptr<Stream>> Intake::open_streams() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Stream>> streams;
  for (const auto& [id, stream] : jobs_) streams.push_back(stream);
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

bool Intake::wait_drained(std::chrono::steady_clock::time_point deadline) {
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

void Intake::release(const std::string& job_id) {
  const std::lock_guard lock(mutex_);
  jobs_.erase(job_id);
  ended_.push_back(job_id);
  if (ended_.size() > kEndedJobs) ended_.pop_front();
}

void Intake::left() {
  const std::lock_guard lock(mutex_);
  CHECK(untold_ > 0);
  if (--untold_ > 0) return;
  watch_.work_ends();
  drained_.notify_all();
}

void Intake::forget_ended() {
  const std::lock_guard lock(mutex_);
  ended_.clear();
}

}  // namespace llorch
