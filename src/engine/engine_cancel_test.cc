// How a request ends before its time: by whom, and where it is then. Its blocks are free before the
// next step, it is told once, and its neighbour is as if it had been alone. And how readers are
// woken.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engine/metrics.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;

constexpr char kPrompt[] = "abcdefghijklmnopqrst";
constexpr milliseconds kTimeout{100}, kDeadline{50};

struct Way {
  const char* name;
  void (*end)(TestEngine& test, Reader& reader);
  const char* told;
  Outcome outcome;
  bool takes_all = false;  // ends the neighbour too
  std::optional<milliseconds> deadline = {};
};
const Way kWays[] = {
    {"closed socket", [](TestEngine&, Reader& reader) { reader.leave(); }, "failed(CANCELLED)",
     Outcome::kCancelled},
    {"/cancel", [](TestEngine& test, Reader&) { EXPECT_TRUE(test.engine.cancel("subject")); },
     "failed(CANCELLED)", Outcome::kCancelled},
    {"--request-timeout", [](TestEngine& test, Reader&) { test.clock.advance(kTimeout); },
     "failed(TIMEOUT,retriable)", Outcome::kTimeout},
    {"deadline", [](TestEngine& test, Reader&) { test.clock.advance(kDeadline); },
     "failed(TIMEOUT,retriable)", Outcome::kTimeout, false, kDeadline},
    {"shutdown", [](TestEngine& test, Reader&) { test.engine.stop(); },
     "failed(CANCELLED,retriable)", Outcome::kCancelled, true},
};

struct Place {
  const char* name;
  int max_batch, steps;
  std::string_view told;
};
const Place kPlaces[] = {
    {"not yet seen by the engine", 2, 0, ""},
    {"behind a full batch", 1, 3, ""},
    {"prefill", 2, 3, "started(20)"},
    {"decode", 2, 8, "started(20) token(u) token(v)"},
};

// A step takes four tokens: one of the neighbour, then three of the subject's prompt.
class Cancel : public ::testing::TestWithParam<std::tuple<Way, Place>> {
 protected:
  Cancel()
      : test_({.max_batch = place().max_batch, .step_tokens = 4, .steps_in_flight = 1}),
        alone_({.step_tokens = 4, .steps_in_flight = 1}) {
    neighbour_ = test_.submit(test_request("neighbour", "b", 20));
    neighbour_alone_ = alone_.submit(test_request("neighbour", "b", 20));
    test_.engine.step();
    alone_.engine.step();
    Request request = test_request("subject", kPrompt, 50);
    request.timeout = kTimeout;
    if (way().deadline) request.deadline = test_.clock.now() + *way().deadline;
    subject_ = test_.submit(std::move(request));
    for (int i = 0; i < place().steps; ++i) {
      test_.engine.step();
      alone_.engine.step();
    }
  }
  static const Way& way() { return std::get<0>(GetParam()); }
  static const Place& place() { return std::get<1>(GetParam()); }

  uint64_t ended(Outcome outcome) {
    return test_.engine.metrics().outcomes[static_cast<size_t>(outcome)].value();
  }

  TestEngine test_, alone_;
  std::shared_ptr<Reader> neighbour_, neighbour_alone_, subject_;
};

TEST_P(Cancel, FreesTheBlocksBeforeTheNextStepAndIsToldOnce) {
  EXPECT_EQ(described(*subject_), place().told);
  const uint64_t steps = test_.engine.snapshot().steps;
  way().end(test_, *subject_);
  if (way().takes_all) {
    test_.engine.run();  // returns, since it was told to stop
    EXPECT_EQ(test_.engine.snapshot().steps, steps);
    EXPECT_EQ(test_.engine.snapshot().blocks_used, 0);
  } else {
    test_.engine.step();
    alone_.engine.step();
    const EngineSnapshot now = test_.engine.snapshot();
    EXPECT_EQ(now.steps, steps + 1);
    EXPECT_EQ(now.running, 1);
    EXPECT_EQ(now.waiting, 0);
    EXPECT_EQ(now.blocks_used, alone_.engine.snapshot().blocks_used);
  }
  EXPECT_EQ(described(*subject_), way().told);
  EXPECT_EQ(ended(way().outcome), way().takes_all ? 2u : 1u);
  test_.run_until_idle();
  alone_.run_until_idle();
  EXPECT_EQ(described(*subject_), "");
  if (!way().takes_all) {
    EXPECT_EQ(described(*neighbour_), described(*neighbour_alone_));
    EXPECT_EQ(ended(Outcome::kMaxTokens), 1u);
  }
  EXPECT_EQ(test_.engine.snapshot().blocks_used, 0);
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<Way, Place>>& info) {
  std::string text = std::string(std::get<0>(info.param).name) + std::get<1>(info.param).name;
  std::erase_if(text, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return text;
}
INSTANTIATE_TEST_SUITE_P(Everywhere, Cancel,
                         ::testing::Combine(::testing::ValuesIn(kWays),
                                            ::testing::ValuesIn(kPlaces)),
                         case_name);

// A reader that reads when it is woken is woken once for each batch of events that it found, and
// never while it has events to read.
TEST(Wakes, ComeOnceForAnEmptyQueue) {
  TestEngine test;
  struct Follower {
    std::shared_ptr<Reader> reader;
    int wakes = 0, events = 0;
    bool unread = false;  // events that it was woken for
    void read() {
      unread = false;
      while (reader->next()) ++events;
    }
  };
  Follower prompt, lazy;
  const auto follow = [&](Follower& one, const char* job) {
    one.reader = test.engine.submit(test_request(job, "a", 12), [&one] {
      EXPECT_FALSE(one.unread);
      one.unread = true;
      ++one.wakes;
    });
  };
  follow(prompt, "prompt");
  follow(lazy, "lazy");
  int step = 0;
  for (; test.engine.step(); ++step) {
    if (prompt.unread) prompt.read();
    if (step == 5) lazy.read();
  }
  EXPECT_EQ(step, 12);
  EXPECT_EQ(prompt.wakes, step);         // one a step
  EXPECT_EQ(prompt.events, 1 + 12 + 1);  // started, tokens, end
  EXPECT_EQ(lazy.wakes, 2);              // for the first event, and for the first after it had read
  lazy.read();
  EXPECT_EQ(lazy.events, 1 + 12 + 1);
}

}  // namespace
}  // namespace llorch
