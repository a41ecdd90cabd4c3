// Drafts are seen in no answer: whatever is asked for, with and without them the events are equal.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int between(int least, int most) {
    return least + static_cast<int>(engine_() % static_cast<uint32_t>(most - least + 1));
  }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return *(values.begin() + between(0, static_cast<int>(values.size()) - 1));
  }

 private:
  std::mt19937 engine_;
};

// Repeats pieces of the alphabet and of itself, as the fake model's answers do: some guesses are
// right there, and some are wrong.
std::string repeating_text(Random& random, int length) {
  std::string text;
  while (static_cast<int>(text.size()) < length) {
    if (text.size() > 8 && random.between(0, 1)) {
      const auto from = static_cast<size_t>(random.between(0, static_cast<int>(text.size()) - 8));
      text += text.substr(from, 8);
    } else {
      const int first = random.between(0, 25);
      for (int i = first; i < std::min(26, first + 6); ++i) text += static_cast<char>('a' + i);
    }
  }
  text.resize(static_cast<size_t>(length));
  return text;
}

// Some begin as all others do.
Request any_request(Random& random, int context) {
  const int length = random.between(1, context / 2);
  Random common(7);
  std::string prompt = repeating_text(common, random.one_of({0, length / 2, length}));
  prompt += repeating_text(random, length - static_cast<int>(prompt.size()));
  Request request = test_request("", prompt, random.between(1, context - length));
  Sampling& sampling = request.sampling;
  sampling.seed = static_cast<uint64_t>(random.between(0, 1 << 20));
  sampling.temperature = random.one_of({0.0f, 0.0f, 0.4f, 1.0f});
  sampling.top_k = random.one_of({0, 0, 5});
  sampling.repetition_penalty = random.one_of({1.0f, 1.0f, 1.0f, 1.2f});
  sampling.top_logprobs = random.one_of({-1, 0, 3});
  request.ignore_eos = random.between(0, 3) > 0;
  if (random.between(0, 2) == 0) request.stop = {"jkl", "xy", "9a"};
  return request;
}

struct Figures {
  uint64_t drafted = 0, right = 0, preemptions = 0, hits = 0, steps = 0;
};

// The answers to requests that come while others run.
std::vector<std::string> answers(const std::vector<Request>& requests, EngineOptions options,
                                 TestKind kind, Figures* figures) {
  TestEngine test(options, kind);
  std::vector<std::shared_ptr<Reader>> readers;
  for (const Request& request : requests) {
    Request copy = request;
    copy.job_id = std::to_string(readers.size());
    readers.push_back(test.submit(std::move(copy)));
    test.engine.step();
  }
  test.run_until_idle();
  const EngineMetrics& m = test.engine.metrics();
  const EngineSnapshot snapshot = test.engine.snapshot();
  EXPECT_EQ(snapshot.blocks_used, 0);
  *figures = {m.draft_tokens.value(), m.right_draft_tokens.value(), snapshot.preemptions,
              snapshot.prefix_hit_tokens, m.steps.value()};
  std::vector<std::string> all;
  for (const auto& reader : readers) all.push_back(described(*reader));
  return all;
}

TEST(EngineDraft, ChangesNoAnswer) {
  constexpr int kContext = 192;
  Figures sum;
  for (const TestKind kind : kTestKinds) {
    for (uint32_t seed = 0; seed < 30; ++seed) {
      SCOPED_TRACE("kind " + std::to_string(static_cast<int>(kind)) + ", seed " +
                   std::to_string(seed));
      Random random(seed);
      EngineOptions options{.context = kContext};
      options.max_batch = random.one_of({1, 3, 8});
      options.step_tokens = random.one_of({20, 64, 512});
      options.block_tokens = random.one_of({1, 4, 16});
      if (random.between(0, 1)) {
        options.max_batch = 1;
        const uint64_t one = TestEngine(options, kind).engine.kv_bytes();
        options.max_batch = 8;
        options.kv_bytes = one * static_cast<uint64_t>(random.between(100, 250)) / 100;
      }
      std::vector<Request> requests;
      for (int n = random.between(1, 12); n > 0; --n) {
        requests.push_back(any_request(random, kContext));
      }
      Figures with, without;
      options.speculate = false;
      const auto expected = answers(requests, options, kind, &without);
      options.speculate = true;
      ASSERT_EQ(answers(requests, options, kind, &with), expected);
      EXPECT_EQ(without.drafted, 0u);
      sum.drafted += with.drafted;
      sum.right += with.right;
      sum.preemptions += with.preemptions;
      sum.hits += with.hits;
    }
  }
  EXPECT_GT(sum.right, 2000u);
  EXPECT_GT(sum.drafted - sum.right, 2000u);
  EXPECT_GT(sum.preemptions, 20u);
  EXPECT_GT(sum.hits, 1000u);
}

// The alphabet twice: from its second letter of the second time on all guesses are right.
constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz";

Request second_alphabet(int32_t max_tokens) {
  return test_request("job", std::string(kAlphabet) + "abc", max_tokens);
}

std::string answer(Request request, bool speculate, uint64_t* steps) {
  TestEngine test({.speculate = speculate});
  const auto reader = test.submit(std::move(request));
  test.run_until_idle();
  *steps = test.engine.metrics().steps.value();
  return described(*reader);
}

void expect_equal_in_fewer_steps(const Request& request, const std::string& end) {
  uint64_t with = 0, without = 0;
  const std::string expected = answer(request, false, &without);
  EXPECT_EQ(answer(request, true, &with), expected);
  EXPECT_TRUE(expected.ends_with(end)) << expected;
  EXPECT_LT(with, without);
}

TEST(EngineDraft, EndsAtTheRightTokenThoughMoreWereRight) {
  for (int tokens = 6; tokens <= 20; ++tokens) {
    expect_equal_in_fewer_steps(second_alphabet(tokens),
                                "end(MAX_TOKENS," + std::to_string(tokens) + ")");
  }
  for (const char* stop : {"jkl", "m", "rs"}) {
    Request request = second_alphabet(100);
    request.stop = {stop};
    const auto tokens = std::string(kAlphabet).find(stop) + std::string(stop).size() - 3;
    expect_equal_in_fewer_steps(
        request, "end(STOP_SEQUENCE," + std::to_string(tokens) + "," + std::string(stop) + ")");
  }
  expect_equal_in_fewer_steps(second_alphabet(100), "end(EOS,29)");
}

TEST(EngineDraft, GivesEachTokenItsOwnLogprob) {
  Request request = second_alphabet(18);
  request.sampling.top_logprobs = 2;
  request.sampling.repetition_penalty = 1.01f;
  expect_equal_in_fewer_steps(request, "end(MAX_TOKENS,18)");
}

TEST(EngineDraft, CountsWhatItDrafts) {
  TestEngine test;
  const EngineMetrics& m = test.engine.metrics();
  const auto reader = test.submit(second_alphabet(20));
  test.run_until_idle();
  EXPECT_GT(m.drafts.value(), 0u);
  EXPECT_LE(m.right_draft_tokens.value(), m.draft_tokens.value());
  EXPECT_EQ(m.tokens_out.value(), 20u);
  // Each step gave one token and the drafts that were right.
  EXPECT_EQ(m.steps.value() + m.right_draft_tokens.value(), 20u);
  // What was computed and kept: the prompt, and every token but the last.
  EXPECT_EQ(m.step_tokens.sum(), 29 + 19);
  uint64_t gaps = 0;
  for (const auto& bucket : m.inter_token_latency.buckets()) gaps += bucket;
  EXPECT_EQ(gaps, 19u);
}

TEST(EngineDraft, HoldsNoBlockForDraftsBetweenSteps) {
  TestEngine test({.steps_in_flight = 1, .block_tokens = 4});
  Request request = second_alphabet(100);
  request.sampling.temperature = 1;
  request.sampling.seed = 4;
  request.ignore_eos = true;
  const auto reader = test.submit(std::move(request));
  while (test.engine.step()) {
    const EngineSnapshot snapshot = test.engine.snapshot();
    if (snapshot.running == 0) break;
    // The last token is not computed yet.
    const auto computed = 29 + static_cast<int32_t>(snapshot.tokens_out) - 1;
    ASSERT_EQ(snapshot.blocks_used, (computed + 3) / 4);
  }
  EXPECT_GT(test.engine.metrics().right_draft_tokens.value(), 0u);
  EXPECT_LT(test.engine.metrics().right_draft_tokens.value(),
            test.engine.metrics().draft_tokens.value());
}

// Memory that a step does not find costs one request; the others' drafts are made anew.
TEST(EngineDraft, OutlivesAStepWithoutMemory) {
  uint64_t steps = 0;
  const std::string expected = answer(second_alphabet(40), false, &steps);
  for (const char* at : {"2", "3", "4"}) {
    setenv("LLORCH_FAKE_OOM_AT_STEP", at, 1);
    TestEngine test;
    unsetenv("LLORCH_FAKE_OOM_AT_STEP");
    const auto first = test.submit(second_alphabet(40));
    Request second = second_alphabet(40);
    second.job_id = "second";
    const auto last = test.submit(std::move(second));
    test.run_until_idle();
    EXPECT_EQ(described(*first), expected);
    EXPECT_TRUE(described(*last).ends_with("failed(VRAM_OOM,retriable)"));
    EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
  }
}

TEST(EngineDraft, ACancelEndsWhatHasDrafts) {
  TestEngine test;
  Request request = second_alphabet(200);
  request.ignore_eos = true;
  const auto reader = test.submit(std::move(request));
  for (int i = 0; i < 4; ++i) test.engine.step();
  EXPECT_GT(test.engine.metrics().right_draft_tokens.value(), 0u);
  EXPECT_TRUE(test.engine.cancel("job"));
  EXPECT_FALSE(test.engine.step());
  EXPECT_TRUE(described(*reader).ends_with("failed(CANCELLED)"));
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
}

}  // namespace
}  // namespace llorch
