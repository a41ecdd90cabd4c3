// The CPU backend's threads: fork and join over numbered tasks. Knows nothing of what they do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace llorch::cpu {

class ThreadPool {
 public:
  // The calling thread is one of `threads` >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();

  int threads() const { return static_cast<int>(shares_.size()); }

  // Calls body(task, thread) once for every task of 0 .. tasks - 1, in any order, and returns when
  // all are done. `thread` is less than threads() and not shared while the call lasts. `body` must
  // not throw. One caller at a time.
  template <class Body>
  void parallel_for(int tasks, Body&& body) {
    run(
        tasks,
        [](void* context, int task, int thread) {
          (*static_cast<std::remove_reference_t<Body>*>(context))(task, thread);
        },
        &body);
  }

 private:
  using Function = void (*)(void* context, int task, int thread);

  void run(int tasks, Function function, void* context);
  void work(int thread);
  void take_tasks(int thread);
  bool join(uint64_t seen);
  void leave();
  uint64_t wait_for_job(uint64_t done);

  // The job. Written by the caller while no worker has joined.
  Function function_ = nullptr;
  void* context_ = nullptr;
  // A thread's tasks follow each other, as what they read does in memory: a stream that goes on
  // from one to the next. Who has done its own takes what is left of the others'.
  struct alignas(64) Share {
    std::atomic<int> next{0};
    int end = 0;
  };
  std::vector<Share> shares_;  // one a thread
  // Job number << 32 | open << 31 | workers that have joined. A worker that comes late finds the
  // job closed, so the caller never waits for one that has not woken up.
  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;  // the workers, for a job
  std::condition_variable left_;  // the caller, when the last worker has left
  std::vector<std::thread> workers_;
};

}  // namespace llorch::cpu
