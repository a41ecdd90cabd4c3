// Fork and join. Whoever waits, workers for a job or the caller for workers, spins for a moment, as
// it is mostly over at once, then sleeps: beside a busy neighbour a worker may be off its core for
// milliseconds, and a caller that spun all that while would have used up its own share of time when
// the worker is back.
#include "backends/cpu/thread_pool.h"

#include <chrono>
#include <string>

#include "base/os.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llorch::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kJoinedMask = kOpen - 1;
// About the time between two ops of a step; longer would take cores from other processes.
constexpr auto kSpin = std::chrono::microseconds(50);

uint64_t job_of(uint64_t state) { return state >> 32; }

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until `done` is true or time is up.
template <class Done>
bool spin(Done done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<size_t>(threads)) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::take_tasks(int thread) {
  for (int i = 0; i < threads(); ++i) {
    Share& share = shares_[static_cast<size_t>((thread + i) % threads())];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const int task = share.next.fetch_add(1, std::memory_order_relaxed);
      if (task < share.end) function_(context_, task, thread);
    }
  }
}

void ThreadPool::run(int tasks, Function function, void* context) {
  if (workers_.empty() || tasks <= 1) {
    for (int task = 0; task < tasks; ++task) function(context, task, 0);
    return;
  }
  function_ = function;
  context_ = context;
  for (int i = 0, first = 0; i < threads(); ++i) {
    Share& share = shares_[static_cast<size_t>(i)];
    share.next.store(first, std::memory_order_relaxed);
    first += tasks / threads() + (i < tasks % threads() ? 1 : 0);
    share.end = first;
  }
  state_.store((job_of(state_.load()) + 1) << 32 | kOpen);
  if (sleepers_.load() > 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  take_tasks(0);
  state_.fetch_and(~kOpen);
  const auto all_left = [this] { return (state_.load() & kJoinedMask) == 0; };
  if (spin(all_left)) return;
  std::unique_lock lock(mutex_);
  left_.wait(lock, all_left);
}

void ThreadPool::leave() {
  const bool last = (state_.fetch_sub(1) & kJoinedMask) == 1;
  if (!last) return;
  // Between the caller's look at the state and its sleep there is no gap under the lock.
  const std::lock_guard lock(mutex_);
  left_.notify_one();
}

bool ThreadPool::join(uint64_t seen) {
  while (seen & kOpen) {
    if (state_.compare_exchange_weak(seen, seen + 1)) return true;
  }
  return false;
}

// Returns the state of a job other than `done`, or of `done` itself when the pool stops.
uint64_t ThreadPool::wait_for_job(uint64_t done) {
  const auto ready = [&] { return stopping_ || job_of(state_.load()) != done; };
  if (!spin(ready)) {
    std::unique_lock lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, ready);
    --sleepers_;
  }
  return state_.load();
}

void ThreadPool::work(int thread) {
  os::name_this_thread(("cpu-" + std::to_string(thread)).c_str());
  uint64_t done = 0;
  while (!stopping_) {
    const uint64_t seen = wait_for_job(done);
    if (join(seen)) {
      // join() may have met a later job than `seen`; its number cannot change while we are in it.
      done = job_of(state_.load());
      take_tasks(thread);
      leave();
    } else {
      done = job_of(seen);
    }
  }
}

}  // namespace llorch::cpu
