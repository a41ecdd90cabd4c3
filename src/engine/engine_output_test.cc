// What one request is told: text, stop strings, EOS, logprobs, metrics and times.
#include "engine/output.h"

#include <gtest/gtest.h>

#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;

std::string told(TestEngine& test, Request request) {
  const auto stream = test.submit(std::move(request));
  test.run_until_idle();
  return described(*stream);
}

TEST(EngineOutput, EndsAtMaxTokens) {
  TestEngine test;
  EXPECT_EQ(told(test, test_request("job", "xa", 3)),
            "started(2) token(b) token(c) token(d) end(MAX_TOKENS,3)");
  EXPECT_EQ(told(test, test_request("job", "a", 1)), "started(1) token(b) end(MAX_TOKENS,1)");
}

TEST(EngineOutput, FailsARequestWhoseLogitsAreNotFinite) {
  TestModel model(256);
  const Request request = test_request("job", "a", 3);
  Sampled not_finite;
  not_finite.token = -1;
  Output output(request, 1, model.tokenizer, {}, std::make_shared<Stream>());
  const std::optional<Event> terminal = output.take(not_finite, {});
  ASSERT_TRUE(terminal.has_value());
  EXPECT_EQ(described({*terminal}), "failed(INFERENCE_FAILED,retriable)");
}

TEST(EngineOutput, TellsEachTokenBeforeTheNextIsComputed) {
  TestEngine test;
  const auto stream = test.submit(test_request("job", "a", 3));
  ASSERT_TRUE(test.engine.step());
  EXPECT_EQ(described(*stream), "started(1) token(b)");
  ASSERT_TRUE(test.engine.step());
  EXPECT_EQ(described(*stream), "token(c)");
  ASSERT_TRUE(test.engine.step());
  EXPECT_EQ(described(*stream), "token(d) end(MAX_TOKENS,3)");
  EXPECT_FALSE(test.engine.step());
}

TEST(EngineOutput, TellsTheStartBeforeALongPromptIsComputed) {
  TestEngine test({.max_batch = 2, .step_tokens = 4});
  const auto stream = test.submit(test_request("job", "abcdefghij", 1));
  test.engine.step();
  EXPECT_EQ(described(*stream), "started(10)");
  test.engine.step();
  EXPECT_EQ(described(*stream), "");
  test.engine.step();
  EXPECT_EQ(described(*stream), "token(k) end(MAX_TOKENS,1)");
}

TEST(EngineOutput, WaitsForWholeCharacters) {
  TestEngine test;
  EXPECT_EQ(told(test, test_request("job", ".", 4)),
            "started(1) token(€) token(!) end(MAX_TOKENS,4)");
}

TEST(EngineOutput, ReplacesAnUnfinishedCharacterAtTheEnd) {
  TestEngine test;
  EXPECT_EQ(told(test, test_request("job", ".", 2)), "started(1) token(\uFFFD) end(MAX_TOKENS,2)");
}

TEST(EngineOutput, ReplacesBytesThatNeverBecomeACharacter) {
  TestEngine test;
  EXPECT_EQ(told(test, test_request("job", "9", 3)),
            "started(1) token(\uFFFDa) token(b) end(MAX_TOKENS,3)");
}

TEST(EngineOutput, NeitherTellsNorCountsEos) {
  TestEngine test;
  EXPECT_EQ(told(test, test_request("job", ".", 50)), "started(1) token(€) token(!) end(EOS,4)");
  EXPECT_EQ(told(test, test_request("job", "!", 50)), "started(1) end(EOS,0)");
}

TEST(EngineOutput, TakesEveryEosIdGiven) {
  TestEngine test({.eos_ids = {25, 3}});
  EXPECT_EQ(told(test, test_request("job", "a", 50)), "started(1) token(b) token(c) end(EOS,2)");
  EXPECT_EQ(told(test, test_request("job", "x", 50)), "started(1) token(y) end(EOS,1)");
  EXPECT_EQ(told(test, test_request("job", "!", 50)), "started(1) end(EOS,0)");
}

TEST(EngineOutput, RunsPastEosWhereAsked) {
  TestEngine test;
  Request request = test_request("job", "!", 3);
  request.ignore_eos = true;
  EXPECT_EQ(told(test, request), "started(1) token(0) token(1) end(MAX_TOKENS,3)");
}

TEST(EngineOutput, NeverLetsAStopSequenceOut) {
  TestEngine test;
  Request request = test_request("job", "a", 50);
  request.stop = {"def"};
  EXPECT_EQ(told(test, request), "started(1) token(b) token(c) end(STOP_SEQUENCE,5,def)");
  request.stop = {"b"};
  EXPECT_EQ(told(test, request), "started(1) end(STOP_SEQUENCE,1,b)");
  request.stop = {"xyz", "ef", "cdx"};
  EXPECT_EQ(told(test, request), "started(1) token(b) token(cd) end(STOP_SEQUENCE,5,ef)");
}

TEST(EngineOutput, FindsAStopSequenceAcrossBytesOfACharacter) {
  TestEngine test;
  Request request = test_request("job", ".", 50);
  request.stop = {"€!"};
  EXPECT_EQ(told(test, request), "started(1) end(STOP_SEQUENCE,4,€!)");
}

TEST(EngineOutput, FindsAStopSequenceInWhatTheEndMadeWhole) {
  TestEngine test({.eos_ids = {30}});
  Request request = test_request("job", ".", 50);
  request.stop = {"\uFFFD"};
  EXPECT_EQ(told(test, request), "started(1) end(STOP_SEQUENCE,2,\uFFFD)");
}

TEST(EngineOutput, LetsWhatOnlyLookedLikeAStopSequenceOut) {
  TestEngine test;
  Request request = test_request("job", "a", 4);
  request.stop = {"cdX", "ef"};
  EXPECT_EQ(told(test, request), "started(1) token(b) token(cde) end(MAX_TOKENS,4)");
  request.prompt = test_ids(".");
  request.max_tokens = 50;
  request.stop = {"!?"};
  EXPECT_EQ(told(test, request), "started(1) token(€) token(!) end(EOS,4)");
}

TEST(EngineOutput, AStopSequenceInTheLastTokenWins) {
  TestEngine test;
  Request request = test_request("job", "a", 3);
  request.stop = {"cd"};
  EXPECT_EQ(told(test, request), "started(1) token(b) end(STOP_SEQUENCE,3,cd)");
}

// Each model token has one event with a logprob, whatever becomes of its text.
TEST(EngineOutput, GivesEachTokenItsLogprob) {
  TestEngine test;
  Request request = test_request("job", ".", 50);
  request.sampling.top_logprobs = 1;
  request.stop = {"!?"};
  const auto stream = test.submit(request);
  test.run_until_idle();
  std::vector<Event> events = all_events(*stream);
  ASSERT_EQ(events.size(), 7u);
  const struct {
    const char* text;
    int32_t id;
  } tokens[] = {{"", 28}, {"", 29}, {"€", 30}, {"", 31}};
  for (size_t i = 0; i < 4; ++i) {
    const auto& token = std::get<TokenEvent>(events[i + 1]);
    EXPECT_EQ(token.text, tokens[i].text);
    EXPECT_EQ(token.id, tokens[i].id);
    ASSERT_TRUE(token.logprob);
    EXPECT_LT(*token.logprob, 0);
    ASSERT_EQ(token.top.size(), 1u);
    EXPECT_EQ(token.top[0].token, tokens[i].id);
    EXPECT_EQ(token.top[0].logprob, *token.logprob);
  }
  const auto& rest = std::get<TokenEvent>(events[5]);
  EXPECT_EQ(rest.text, "!");
  EXPECT_FALSE(rest.logprob);
  EXPECT_EQ(std::get<EndEvent>(events[6]).tokens_out, 4);
}

TEST(EngineOutput, TellsItsSpeedOnceASecond) {
  TestEngine test;
  const auto stream = test.submit(test_request("job", "a", 6));
  std::vector<Event> events;
  while (test.engine.step()) test.clock.advance(milliseconds(500));
  EXPECT_EQ(described(*stream),
            "started(1) token(b) token(c) token(d) metrics(2.000000) token(e) token(f) "
            "metrics(2.000000) token(g) end(MAX_TOKENS,6)");
}

TEST(EngineOutput, MeasuresFromTheFirstTokenToTheLast) {
  TestEngine test;
  const auto stream = test.submit(test_request("job", "a", 4));
  test.clock.advance(milliseconds(10'000));
  while (test.engine.step()) test.clock.advance(milliseconds(70));
  const std::vector<Event> events = all_events(*stream);
  EXPECT_EQ(std::get<EndEvent>(events.back()).decode_time, milliseconds(210));
}

}  // namespace
}  // namespace llorch
