// Fork and join: every task once, threads told apart, many jobs in a row.
#include "backends/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace llorch::cpu {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 4, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int tasks : {0, 1, 2, 3, 17, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
      pool.parallel_for(tasks, [&](int task, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, threads);
        ++runs[static_cast<size_t>(task)];
      });
      for (const auto& count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, NeverSharesAThreadNumber) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::vector<int> sums(kThreads);  // plain ints: a shared number would be a race
  for (int job = 0; job < 2000; ++job) {
    pool.parallel_for(16, [&](int, int thread) { ++sums[static_cast<size_t>(thread)]; });
  }
  int total = 0;
  for (const int sum : sums) total += sum;
  EXPECT_EQ(total, 2000 * 16);
}

// Late: beyond the time that the caller spins.
TEST(ThreadPool, WaitsForWorkersThatAreLate) {
  ThreadPool pool(3);
  for (int job = 0; job < 50; ++job) {
    std::atomic<int> done = 0;
    pool.parallel_for(12, [&](int, int thread) {
      if (thread != 0) std::this_thread::sleep_for(std::chrono::microseconds(100 * (job % 5)));
      ++done;
    });
    EXPECT_EQ(done, 12);
  }
}

TEST(ThreadPool, StopsWhetherItsWorkersSleepOrNot) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(3);
    std::atomic<int> done = 0;
    if (i % 2 == 0) pool.parallel_for(5, [&](int, int) { ++done; });
    EXPECT_EQ(done, i % 2 == 0 ? 5 : 0);
  }
}

}  // namespace
}  // namespace llorch::cpu
