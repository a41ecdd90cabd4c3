// Memory after the start: what steps allocate, and what becomes of requests when there is none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "base/memory_reserve.h"
#include "base/test_allocations.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

class EngineMemory : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    set_memory_aside(256 * 1024);
    // A meter that moves every third step, so that its account has something to keep.
    setenv("LLORCH_FAKE_STEP_JOULES", "10", 1);
    setenv("LLORCH_FAKE_METER_JOULES", "30", 1);
  }
  void SetUp() override { ASSERT_TRUE(refill_memory_reserve()); }
};

Request rich_request(std::string job_id) {
  Request request = test_request(std::move(job_id), "the first line of all", 12);
  request.sampling.top_logprobs = 3;
  request.sampling.repetition_penalty = 1.5f;
  request.stop = {"never seen", "zq"};
  request.ignore_eos = true;
  return request;
}

constexpr char kOutOfMemory[] = "failed(VRAM_OOM,retriable)";

// Whatever allocation fails: one request ends for it at most, and is told so; the others get what
// they get without it, and nothing is left behind.
void expect_one_hurt_at_most(EngineOptions options, float penalty) {
  options.max_batch = 3;
  options.step_tokens = 8;
  options.block_tokens = 4;
  TestEngine test(options);
  std::string expected[2];
  int failed = 0, refused = 0;
  bool happened = true;
  for (int64_t n = -1; happened; ++n) {  // -1: none fails
    ASSERT_TRUE(refill_memory_reserve());
    std::shared_ptr<Reader> readers[2] = {test.submit(test_request("plain", "abc", 20)), nullptr};
    test.engine.step();
    {
      const FailAllocation fail(n < 0 ? INT64_MAX : n, FailAllocation::Where::kThisThread);
      try {
        Request rich = rich_request("rich");
        rich.sampling.repetition_penalty = penalty;
        readers[1] = test.submit(std::move(rich));
      } catch (const std::bad_alloc&) {
        ++refused;
      }
      test.run_until_idle();
      happened = n < 0 || fail.happened();
    }
    int hurt = readers[1] ? 0 : 1;
    for (int i = 0; i < 2; ++i) {
      if (!readers[i]) continue;
      const std::string events = described(*readers[i]);
      if (n < 0) {
        expected[i] = events;
      } else if (events != expected[i]) {
        ++hurt, ++failed;
        EXPECT_TRUE(events.ends_with(kOutOfMemory)) << "allocation " << n << ": " << events;
        EXPECT_EQ(events.find(kOutOfMemory), events.rfind(kOutOfMemory)) << events;
      }
    }
    EXPECT_LE(hurt, 1) << "allocation " << n;
    const EngineSnapshot snapshot = test.engine.snapshot();
    EXPECT_EQ(snapshot.running + snapshot.waiting + snapshot.blocks_used, 0) << "allocation " << n;
    EXPECT_FALSE(snapshot.failed);
  }
  EXPECT_GT(refused, 5);
  EXPECT_GT(failed, 20);
  EXPECT_EQ(test.engine.snapshot().steps_ahead > 100, options.steps_in_flight == 2);
}

TEST_F(EngineMemory, AnAllocationThatFailsEndsOneRequestAtMost) {
  expect_one_hurt_at_most({.steps_in_flight = 1}, 1.5f);
}

TEST_F(EngineMemory, AnAllocationThatFailsBesideAStepInFlightEndsOneRequestAtMost) {
  if (kBackendInfo.computes) GTEST_SKIP() << "it takes one step at a time";
  expect_one_hurt_at_most({.steps_in_flight = 2, .speculate = false}, 1);
}

// Of steps of decoding: the most that one allocates for a token, in the first and second half.
std::pair<double, double> most_allocations(bool speculate, int steps_in_flight) {
  TestEngine test({.context = 1024,
                   .max_batch = 4,
                   .steps_in_flight = steps_in_flight,
                   .speculate = speculate,
                   .block_tokens = 4});
  std::vector<std::shared_ptr<Reader>> readers;
  for (int i = 0; i < 4; ++i) {
    Request request = test_request("job" + std::to_string(i), "abc", 1000);
    request.ignore_eos = true;
    readers.push_back(test.submit(std::move(request)));
  }
  test.engine.step();
  const auto tokens = [&] { return test.engine.snapshot().tokens_out; };
  double most[2] = {0, 0};
  while (true) {
    for (const auto& reader : readers) all_events(*reader);
    const uint64_t had = tokens(), before = allocations();
    if (!test.engine.step()) break;
    const uint64_t made = allocations() - before;
    double& most_so_far = most[had < 2000 ? 0 : 1];
    most_so_far =
        std::max(most_so_far, static_cast<double>(made) / static_cast<double>(tokens() - had));
  }
  return {most[0], most[1]};
}

// Steps allocate what they tell (an event, its text) and nothing that grows with what is known.
TEST_F(EngineMemory, AStepOfDecodingAllocatesTheSameHoweverLongTheSequencesAre) {
  for (const bool speculate : {false, true}) {
    for (int steps = 1; steps <= (kBackendInfo.computes ? 1 : 2); ++steps) {
      const auto [first, second] = most_allocations(speculate, steps);
      EXPECT_LE(first, 6);
      EXPECT_LE(second, first);
    }
  }
}

}  // namespace
}  // namespace llorch
