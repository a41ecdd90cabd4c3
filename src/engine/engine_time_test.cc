// What depends on how long steps take: an engine whose clock goes on by what it computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kStep{60}, kRow{5};  // about a 1B model's on two cores

// A step takes kStep and kRow for each of its tokens.
class TimedEngine {
 public:
  explicit TimedEngine(int context, EngineOptions options = {}) : model_(context) {
    options.context = context;
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

  std::unique_ptr<Engine> engine;

 private:
  milliseconds computed() const {
    const EngineMetrics& m = engine->metrics();
    return static_cast<int>(m.steps.value()) * kStep + static_cast<int>(m.step_tokens.sum()) * kRow;
  }
  steady_clock::time_point now() {
    if (engine) {
      const milliseconds figure = computed();
      if (figure < last_) last_ = milliseconds(0);  // the warm-up's steps were forgotten
      time_ += figure - last_;
      last_ = figure;
    }
    return steady_clock::time_point(time_);
  }

  TestModel model_;
  milliseconds last_{0}, time_{1'000'000};
};

Request prompt_of(std::string job_id, int tokens, int32_t max_tokens) {
  Request request =
      test_request(std::move(job_id), std::string(static_cast<size_t>(tokens), 'a'), max_tokens);
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

}  // namespace
}  // namespace llorch
