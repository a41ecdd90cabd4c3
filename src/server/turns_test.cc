#include "server/turns.h"

#include <gtest/gtest.h>

#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <vector>

namespace llorch {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

TEST(Turns, AreGivenOnceAndInOrder) {
  asio::io_context context{1};
  Turns turns(context);
  std::vector<int> given, wanted;
  for (int i = 0; i < 100; ++i) {
    turns.add([&, i] { given.push_back(i); });
    wanted.push_back(i);
  }
  context.run();
  EXPECT_EQ(given, wanted);
  turns.add([&] { given.push_back(100); });
  context.restart();
  context.run();
  EXPECT_EQ(given.back(), 100);
}

// What an io_context learns from its reactor (a timer here, a socket as well) waits for a few
// turns, not for all of them.
TEST(Turns, LetTheReactorIn) {
  asio::io_context context{1};
  Turns turns(context);
  size_t given = 0, given_before = 0;
  asio::steady_timer timer(context, asio::steady_timer::time_point::min());
  for (int i = 0; i < 1000; ++i) {
    turns.add([&] {
      // The first to have its turn has something become ready.
      if (given++ == 0) timer.async_wait([&](auto) { given_before = given; });
    });
  }
  context.run();
  EXPECT_EQ(given, 1000U);
  EXPECT_GT(given_before, 0U);
  EXPECT_LE(given_before, 2 * Turns::kAtOnce);
}

TEST(Turns, MayBeAddedByAnyThread) {
  asio::io_context context{1};
  Turns turns(context);
  constexpr int kThreads = 4, kTurns = 5000;
  int given = 0;  // by this thread alone
  std::vector<std::thread> adding;
  for (int t = 0; t < kThreads; ++t) {
    adding.emplace_back([&] {
      for (int i = 0; i < kTurns; ++i) turns.add([&] { ++given; });
    });
  }
  const auto work = asio::make_work_guard(context);
  while (given < kThreads * kTurns) context.run_one();
  for (std::thread& thread : adding) thread.join();
  EXPECT_EQ(given, kThreads * kTurns);
}

}  // namespace
}  // namespace llorch
