// What depends on how long steps take: an engine whose clock goes on by what it computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kStep{60}, kRow{5};  // about a 1B model's on two cores

// A step takes kStep and kRow for each of its tokens.
class TimedEngine {
  TestModel model_;  // outlives the engine

 public:
  explicit TimedEngine(int context, EngineOptions options = {}) : model_(context) {
    options.context = context;
    options.speculate = false;  // the fake model's answers repeat themselves
    options.now = [this] { return now(); };
    engine = std::make_unique<Engine>(model_.backend, model_.model, model_.tokenizer, options);
    engine->warm_up();
  }

  std::shared_ptr<Reader> submit(Request request) {
    return engine->submit(std::move(request), nullptr);
  }
  // The step's duration.
  milliseconds step() {
    const milliseconds before = computed();
    engine->step();
    return computed() - before;
  }

  void add(milliseconds time) { time_ += time; }
  steady_clock::time_point now() {
    if (engine) {
      const milliseconds figure = computed();
      if (figure < last_) last_ = milliseconds(0);  // the warm-up's steps were forgotten
      time_ += figure - last_;
      last_ = figure;
    }
    return steady_clock::time_point(time_);
  }

  std::unique_ptr<Engine> engine;

 private:
  milliseconds computed() const {
    const EngineMetrics& m = engine->metrics();
    return static_cast<int>(m.steps.value()) * kStep + static_cast<int>(m.step_tokens.sum()) * kRow;
  }

  milliseconds last_{0}, time_{1'000'000};
};

// Jobs whose ids begin otherwise share no beginning.
Request prompt_of(std::string job_id, int tokens, int32_t max_tokens) {
  const std::string text(static_cast<size_t>(tokens), job_id[0]);
  Request request = test_request(std::move(job_id), text, max_tokens);
  request.ignore_eos = true;
  return request;
}

bool has_token(Reader& reader) { return described(reader).find("token") != std::string::npos; }

TEST(EngineTime, ALongPromptHardlySlowsThoseWhoDecode) {
  TimedEngine test(8192);
  std::vector<std::shared_ptr<Reader>> decoding;
  for (int i = 0; i < 8; ++i) {
    decoding.push_back(test.submit(prompt_of("job" + std::to_string(i), 4, 2000)));
  }
  test.step();
  const milliseconds decode_only = test.step();
  EXPECT_EQ(decode_only, kStep + 8 * kRow);
  const auto longest = test.submit(prompt_of("long", 4000, 2));
  milliseconds slowest{0};
  int steps = 0;
  while (!has_token(*longest)) {
    slowest = std::max(slowest, test.step());
    ASSERT_LT(++steps, 4000 / 16);
  }
  EXPECT_LE(slowest, 2 * decode_only * 11 / 10);
}

TEST(EngineTime, AShortPromptIsNotBehindALongOne) {
  TimedEngine test(8192);
  const auto longest = test.submit(prompt_of("long", 8000, 2));
  test.step();
  const milliseconds alone = test.step();
  EXPECT_GT(alone, milliseconds(350));
  EXPECT_LT(alone, milliseconds(600));
  const auto shorter = test.submit(prompt_of("short", 60, 2));
  int steps = 0;
  while (!has_token(*shorter)) {
    test.step();
    ASSERT_LT(++steps, 4);
  }
}

// Who else is there when the subject comes, how many run at once, and what is known of the subject.
struct Load {
  const char* name;
  int others, prompt, output, max_batch;
  int context = 8192;
  std::optional<uint64_t> kv_bytes = std::nullopt;
  int priority = 0;
  std::vector<std::pair<int, int>> subjects = {{20, 100}, {500, 20}};  // prompt, output
};
constexpr uint64_t kTokenBytes = 2 * 8 * 4;  // k and v of 8 floats
const Load kLoads[] = {
    {"alone", 0, 0, 0, 32},
    {"beside 8", 8, 20, 400, 32},
    {"beside a long prompt", 1, 3000, 10, 32},
    {"behind one", 1, 50, 100, 1},
    {"behind six", 6, 50, 60, 2},
    // One who needs less than the others may find room before them, or not: nobody can foretell.
    {"behind what fills the kv cache", 8, 300, 300, 32, 1024, 1400 * kTokenBytes, 0, {{300, 300}}},
    {"before six of lower priority", 6, 50, 60, 2, 8192, std::nullopt, 1},
    {"before a long prompt of lower priority", 1, 3000, 10, 32, 8192, std::nullopt, 1}};

struct LoadedEngine : TimedEngine {
  explicit LoadedEngine(const Load& load)
      : TimedEngine(load.context, {.max_batch = load.max_batch, .kv_bytes = load.kv_bytes}) {
    // What the machine does has been seen.
    const auto before = submit(prompt_of("before", 300, 40));
    while (engine->step()) {
    }
    for (int i = 0; i < load.others; ++i) {
      others.push_back(
          submit(prompt_of(char('c' + i) + std::string("ther"), load.prompt, load.output)));
      step();
    }
  }
  std::vector<std::shared_ptr<Reader>> others;
};

// How long the subject takes.
milliseconds time_taken(const Load& load, int prompt, int output) {
  LoadedEngine test(load);
  const auto begin = test.now();
  Request request = prompt_of("subject", prompt, output);
  request.priority = load.priority;
  const auto subject = test.submit(request);
  while (!subject->at_end()) {
    test.step();
    described(*subject);
  }
  return std::chrono::duration_cast<milliseconds>(test.now() - begin);
}

TEST(EngineTime, ADeadlineIsTakenIfItCanBeMet) {
  for (const Load& load : kLoads) {
    for (const auto& [prompt, output] : load.subjects) {
      const milliseconds taken = time_taken(load, prompt, output);
      SCOPED_TRACE(::testing::Message() << load.name << ", " << prompt << " + " << output
                                        << " tokens take " << taken.count() << " ms");
      LoadedEngine test(load);
      Request request = prompt_of("subject", prompt, output);
      request.priority = load.priority;
      request.deadline = test.now() + taken * 60 / 100;
      try {
        test.submit(request);
        ADD_FAILURE() << "taken, though it takes " << taken.count() << " ms";
      } catch (const Overloaded& error) {
        EXPECT_NE(std::string(error.what()).find("the deadline is in "), std::string::npos);
      }
      request.deadline = test.now() + taken * 140 / 100;
      std::shared_ptr<Reader> reader;
      EXPECT_NO_THROW(reader = test.submit(request));
      if (!reader) continue;
      std::string events;
      while (!reader->at_end()) {
        test.step();
        events = described(*reader);
      }
      EXPECT_NE(events.find("end(MAX_TOKENS"), std::string::npos) << events;
    }
  }
}

// What is open-ended takes as long as such requests took, not all that the context leaves.
TEST(EngineTime, ADeadlineOfAnOpenEndedRequest) {
  TimedEngine test(8192);
  const auto request = [&](std::string job_id, int32_t max_tokens) {
    Request r = prompt_of(std::move(job_id), 20, max_tokens);
    r.open_ended = true;
    return r;
  };
  const auto take = [&](Request r, milliseconds deadline) {
    r.deadline = test.now() + deadline;
    return test.submit(std::move(r));
  };
  EXPECT_THROW(take(request("first", 8000), milliseconds(10'000)), Overloaded);
  for (int i = 0; i < 40; ++i) {
    const auto reader = test.submit(request("before" + std::to_string(i), 50));
    while (test.engine->step()) {
    }
  }
  EXPECT_THROW(take(prompt_of("second", 20, 8000), milliseconds(10'000)), Overloaded);
  EXPECT_THROW(take(request("third", 8000), milliseconds(2'000)), Overloaded);
  const auto goes_on = take(request("fourth", 8000), milliseconds(10'000));
  for (int i = 0; i < 300; ++i) test.step();
  EXPECT_NE(described(*goes_on).find("failed(TIMEOUT"), std::string::npos);
}

TEST(EngineTime, ADeadlineThatPassesEndsItsRequest) {
  TimedEngine test(256);
  Request request = prompt_of("subject", 20, 100);
  request.deadline = test.now() + std::chrono::hours(1);
  const auto reader = test.submit(request);
  test.step();
  Request late = prompt_of("late", 20, 100);
  late.deadline = test.now();
  EXPECT_THROW(test.submit(late), Overloaded);
  // Steps that take longer than any before.
  test.add(std::chrono::hours(2));
  test.step();
  EXPECT_NE(described(*reader).find("failed(TIMEOUT,retriable)"), std::string::npos);
  EXPECT_EQ(test.engine->snapshot().blocks_used, 0);
}

TEST(EngineTime, AFullQueueSaysWhenThereIsAPlace) {
  TimedEngine test(256, {.max_batch = 1, .max_queue = 0});
  const auto reader = test.submit(prompt_of("first", 20, 100));
  for (int i = 0; i < 10; ++i) test.step();
  try {
    test.submit(prompt_of("second", 20, 10));
    ADD_FAILURE() << "taken";
  } catch (const Overloaded& error) {
    EXPECT_NEAR(static_cast<double>(error.retry_after().count()), 90.0 * (60 + 5), 650);
  }
}

}  // namespace
}  // namespace llorch
