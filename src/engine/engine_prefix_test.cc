// What a request finds computed of its prompt, and that nobody sees it in an answer.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

constexpr int32_t kPerBlock = 4;
using Ints = std::vector<int32_t>;

constexpr int kStepRows = 8;

// Few rows a step, so that steps count rows. Blocks for eight, where one at a time runs.
EngineOptions few_rows() {
  return {.max_batch = kStepRows, .step_tokens = kStepRows, .block_tokens = kPerBlock};
}

// Of a request that runs alone and computes so many tokens of its prompt.
uint64_t steps_of(size_t rows, int32_t max_tokens) {
  return (rows + kStepRows - 1) / kStepRows + static_cast<uint64_t>(max_tokens) - 1;
}

Ints numbers(int32_t count, uint32_t seed) {
  std::mt19937 random(seed);
  Ints tokens;
  for (int32_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(random() % uint32_t{kTestVocab}));
  }
  return tokens;
}

Ints joined(Ints a, const Ints& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Ints first(const Ints& tokens, int32_t count) { return {tokens.begin(), tokens.begin() + count}; }

Request request(const Ints& prompt, int32_t max_tokens, std::string job_id = "a") {
  Request result;
  result.job_id = std::move(job_id);
  result.prompt = prompt;
  result.max_tokens = max_tokens;
  result.sampling = {.temperature = 1, .seed = 5, .top_logprobs = 1};
  result.ignore_eos = true;
  return result;
}

struct Answer {
  std::string text;  // with logprobs
  int32_t cached = -1;
  Ints tokens;  // of the output
  uint64_t steps = 0;
};

Answer answer_of(Reader& stream) {
  Answer answer;
  const std::vector<Event> events = all_events(stream);
  answer.text = described(events);
  for (const Event& event : events) {
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      answer.cached = started->cached_tokens;
    } else if (const auto* token = std::get_if<TokenEvent>(&event)) {
      answer.tokens.push_back(token->id);
    }
  }
  return answer;
}

Answer run(TestEngine& test, const Ints& prompt, int32_t max_tokens) {
  const uint64_t before = test.engine.snapshot().steps;
  const auto stream = test.submit(request(prompt, max_tokens));
  test.run_until_idle();
  Answer answer = answer_of(*stream);
  answer.steps = test.engine.snapshot().steps - before;
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
  return answer;
}

// The answer of an engine that has seen nothing.
Answer cold(TestKind kind, const Ints& prompt, int32_t max_tokens) {
  TestEngine test(few_rows(), kind);
  Answer answer = run(test, prompt, max_tokens);
  EXPECT_EQ(answer.cached, 0);
  return answer;
}

class Prefix : public ::testing::TestWithParam<TestKind> {
 protected:
  // Runs it, and expects the cold answer and no row of what was cached.
  Answer expect(TestEngine& test, const Ints& prompt, int32_t max_tokens, int32_t cached) {
    const Answer want = cold(GetParam(), prompt, max_tokens), got = run(test, prompt, max_tokens);
    EXPECT_EQ(got.text, want.text);
    EXPECT_EQ(got.cached, cached);
    EXPECT_EQ(got.steps, steps_of(prompt.size() - static_cast<size_t>(cached), max_tokens));
    return got;
  }
};

TEST_P(Prefix, TheNextTurnComputesOnlyWhatIsNew) {
  TestEngine test(few_rows(), GetParam());
  Ints tokens = numbers(33, 1);
  int32_t computed = 0;
  for (int turn = 0; turn < 3; ++turn) {
    // The last token of an answer has not been computed.
    const Answer answer = expect(test, tokens, 6, computed / kPerBlock * kPerBlock);
    tokens = joined(tokens, answer.tokens);
    computed = static_cast<int32_t>(tokens.size()) - 1;
    tokens = joined(tokens, numbers(4, 2));
  }
}

TEST_P(Prefix, ATurnThatIsToldOtherwiseKeepsWhatIsBeforeIt) {
  TestEngine test(few_rows(), GetParam());
  const Ints prompt = numbers(30, 3);
  const Answer answer = run(test, prompt, 20);
  // The last 9 tokens of the answer are others: 41 = 10 blocks and one token of the next.
  const Ints other =
      joined(first(joined(prompt, answer.tokens), 41), {answer.tokens[11] ^ 1, 2, 3});
  expect(test, other, 5, 41);
}

// A pool of one context: in a window's group what lies a step's rows before the end is still there.
TEST_P(Prefix, ATurnThatIsToldOtherwiseIsFoundInTheSmallestPool) {
  for (const int32_t told_anew : {1, 4, kStepRows - 1}) {
    EngineOptions options = few_rows();
    options.kv_bytes =
        TestEngine({.max_batch = 1, .step_tokens = kStepRows, .block_tokens = kPerBlock},
                   GetParam())
            .engine.kv_bytes();
    TestEngine test(options, GetParam());
    const Ints prompt = numbers(40, 9);
    const Answer answer = run(test, prompt, 21);
    const Ints all = joined(prompt, answer.tokens);
    const int32_t common = 60 - told_anew;  // of the 60 that have been computed
    Ints other = first(all, common);
    other.push_back(all[static_cast<size_t>(common)] ^ 1);
    const Answer got = run(test, other, 1), want = cold(GetParam(), other, 1);
    EXPECT_EQ(got.text, want.text);
    EXPECT_GE(got.cached, common / kPerBlock * kPerBlock) << told_anew;
  }
}

TEST_P(Prefix, TheSamePromptAgainComputesOneRow) {
  for (const int32_t tokens : {32, 33, 34}) {
    TestEngine test(few_rows(), GetParam());
    const Ints prompt = numbers(tokens, 4);
    expect(test, prompt, 10, 0);
    expect(test, prompt, 10, tokens - 1);
    expect(test, prompt, 10, tokens - 1);
  }
}

TEST_P(Prefix, ACopiedBlockLeavesItsSourceAlone) {
  TestEngine test(few_rows(), GetParam());
  const Ints prompt = numbers(40, 5);
  run(test, prompt, 9);
  for (const int32_t same : {38, 37, 33, 30, 25, 3, 1}) {
    const Ints other = joined(first(prompt, same), {prompt[static_cast<size_t>(same)] ^ 1, 7, 7});
    expect(test, other, 9, same);
  }
  expect(test, prompt, 9, 39);
}

TEST_P(Prefix, IsSharedWithWhoStillRuns) {
  TestEngine test({.max_batch = 4, .step_tokens = 64, .block_tokens = kPerBlock}, GetParam());
  const Ints prompt = numbers(36, 6);
  const auto one = test.submit(request(prompt, 12, "one"));
  test.engine.step();
  const int32_t used = test.engine.snapshot().blocks_used;
  const auto two = test.submit(request(joined(prompt, {9, 9, 9}), 12, "two"));
  test.engine.step();
  // All but the one or two that each group needs for what is new, a window's end in their middle.
  EXPECT_LE(test.engine.snapshot().blocks_used, used + 2 * 3);
  test.run_until_idle();
  EXPECT_EQ(answer_of(*one).text, cold(GetParam(), prompt, 12).text);
  const Answer answer = answer_of(*two);
  EXPECT_EQ(answer.cached, 36);
  EXPECT_EQ(answer.text, cold(GetParam(), joined(prompt, {9, 9, 9}), 12).text);
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
  EXPECT_EQ(test.engine.snapshot().prefix_query_tokens, 36u + 39u);
  EXPECT_EQ(test.engine.snapshot().prefix_hit_tokens, 36u);
}

// All in one step, and in steps in which the later, shorter ones may go beside the first.
TEST_P(Prefix, IsComputedOnceForAllThatComeAtOnce) {
  for (const int step_tokens : {512, 24}) {
    TestEngine test({.max_batch = 8, .step_tokens = step_tokens, .block_tokens = kPerBlock},
                    GetParam());
    std::vector<Ints> prompts;
    std::vector<std::shared_ptr<Reader>> readers;
    for (int32_t i = 0; i < 8; ++i) {
      prompts.push_back(joined(numbers(50, 6), joined({i}, numbers(9 - i, 7))));
      readers.push_back(test.submit(request(prompts.back(), 1, "job" + std::to_string(i))));
    }
    test.run_until_idle();
    size_t rows = 50;
    for (size_t i = 0; i < 8; ++i) {
      const Answer answer = answer_of(*readers[i]);
      EXPECT_EQ(answer.text, cold(GetParam(), prompts[i], 1).text);
      EXPECT_TRUE(i == 0 ? answer.cached == 0 : answer.cached >= 48) << answer.cached;
      rows += prompts[i].size() - 48;
    }
    EXPECT_LE(test.engine.metrics().step_tokens.sum(), static_cast<double>(rows));
  }
}

TEST_P(Prefix, AWarmTurnIsNotBehindALongPrompt) {
  TestEngine test({.max_batch = 4, .step_tokens = 8, .block_tokens = kPerBlock}, GetParam());
  const Ints known = numbers(55, 6);
  run(test, known, 1);
  const auto cold_one = test.submit(request(numbers(54, 7), 1, "cold"));
  const auto warm = test.submit(request(joined(known, {1, 2, 3}), 1, "warm"));
  for (int i = 0; i < 2; ++i) test.engine.step();
  EXPECT_EQ(answer_of(*warm).cached, 52);
  EXPECT_TRUE(answer_of(*cold_one).tokens.empty());
  test.run_until_idle();
}

TEST_P(Prefix, ForgetsTheWarmUp) {
  TestEngine test(few_rows(), GetParam());
  test.engine.warm_up();
  expect(test, Ints(20, 0), 4, 0);
  EXPECT_EQ(test.engine.snapshot().prefix_query_tokens, 20u);
  EXPECT_EQ(test.engine.snapshot().prefix_hit_tokens, 0u);
}

// Random requests that share beginnings, beside each other, in pools that are mostly too small.
TEST_P(Prefix, NobodySeesItInAnAnswer) {
  std::mt19937 random(11);
  const auto up_to = [&](uint32_t most) { return static_cast<int32_t>(random() % most); };
  uint64_t hits = 0, preemptions = 0;
  for (int round = 0; round < 15; ++round) {
    EngineOptions options{.context = 128,
                          .max_batch = 2 + up_to(4),
                          .step_tokens = 1 + up_to(40),
                          .block_tokens = 1 + up_to(6)};
    options.kv_bytes = TestEngine({.context = 128,
                                   .max_batch = 1,
                                   .step_tokens = std::max(options.step_tokens, options.max_batch),
                                   .block_tokens = options.block_tokens},
                                  GetParam())
                           .engine.kv_bytes() *
                       static_cast<uint64_t>(4 + up_to(3)) / 4;
    TestEngine test(options, GetParam());
    std::vector<std::pair<Request, std::shared_ptr<Reader>>> jobs;
    for (int job = 0; job < 12; ++job) {
      const auto seed = static_cast<uint32_t>(up_to(2));
      Ints prompt =
          joined(numbers(up_to(50), seed), numbers(1 + up_to(8), static_cast<uint32_t>(up_to(5))));
      jobs.emplace_back(request(prompt, 1 + up_to(60), "job" + std::to_string(job)), nullptr);
      jobs.back().second = test.submit(jobs.back().first);
      for (int step = up_to(30); step > 0; --step) test.engine.step();
    }
    test.run_until_idle();
    for (const auto& [asked, stream] : jobs) {
      TestEngine alone({.context = 128, .max_batch = 1}, GetParam());
      const auto want = alone.submit(asked);
      alone.run_until_idle();
      ASSERT_EQ(described(*stream), described(*want)) << "round " << round << " " << asked.job_id;
    }
    EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
    hits += test.engine.snapshot().prefix_hit_tokens;
    preemptions += test.engine.snapshot().preemptions;
  }
  EXPECT_GT(hits, 300u);
  EXPECT_GT(preemptions, 5u);
}

std::string name_of(const ::testing::TestParamInfo<TestKind>& info) {
  const char* const names[] = {"Plain", "Window", "Alternating", "Longrope", "Dynamic"};
  return names[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Kinds, Prefix, ::testing::ValuesIn(kTestKinds), name_of);

// Beyond longrope's switch the same tokens are another content; beyond it they are found again.
TEST(PrefixOfLongrope, IsOfOneRegime) {
  TestEngine test(few_rows(), TestKind::kLongrope);
  const Ints tokens = numbers(100, 8);
  EXPECT_EQ(run(test, first(tokens, 60), 2).cached, 0);
  EXPECT_EQ(run(test, first(tokens, 64), 1).cached, 60);
  EXPECT_EQ(run(test, first(tokens, 65), 1).cached, 0);
  EXPECT_EQ(run(test, first(tokens, 80), 1).cached, 64);
  EXPECT_EQ(run(test, first(tokens, 62), 1).cached, 61);
  // One that crosses is computed anew, but for what has been.
  const Answer answer = run(test, first(tokens, 63), 6);
  EXPECT_EQ(answer.cached, 62);
}

// Beyond its trained length dynamic NTK turns a prompt's keys by angles of the prompt's length.
TEST(PrefixOfDynamicNtk, IsOfOneLength) {
  TestEngine test(few_rows(), TestKind::kDynamic);
  const Ints tokens = numbers(100, 8);
  EXPECT_EQ(run(test, first(tokens, 62), 10).cached, 0);
  EXPECT_EQ(run(test, first(tokens, 64), 1).cached, 62);
  EXPECT_EQ(run(test, first(tokens, 70), 1).cached, 0);
  EXPECT_EQ(run(test, first(tokens, 71), 1).cached, 0);
  EXPECT_EQ(run(test, first(tokens, 70), 10).cached, 68);
  EXPECT_EQ(run(test, first(tokens, 71), 10).cached, 68);
}

}  // namespace
}  // namespace llorch
