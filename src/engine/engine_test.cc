// Many requests in one engine: admission, fairness, one answer, cancels, failures and the end.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/error.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kBlockBytes = 2 * 8 * 16 * 4;  // k and v of 16 tokens x 8 floats
constexpr uint64_t kContextBytes = 16 * kBlockBytes;

void expect_refused(ErrorCode code, TestEngine& test, Request request) {
  try {
    test.submit(std::move(request));
    ADD_FAILURE() << "accepted; wanted " << name(code);
  } catch (const Error& error) {
    EXPECT_STREQ(name(error.code()), name(code)) << error.what();
  }
}

std::string last_of(Reader& stream) {
  const std::vector<Event> events = all_events(stream);
  return events.empty() ? "" : described({events.back()});
}

class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* key, const char* value) : key_(key) { setenv(key, value, 1); }
  ~ScopedEnvironment() { unsetenv(key_); }

 private:
  const char* key_;
};

TEST(Engine, InterleavesSixteenRequests) {
  TestEngine test;
  std::vector<std::shared_ptr<Reader>> streams;
  for (int i = 0; i < 16; ++i) {
    streams.push_back(test.submit(test_request("job" + std::to_string(i), "ab", 5)));
  }
  const char* const steps[] = {"started(2) token(c)", "token(d)", "token(e)", "token(f)",
                               "token(g) end(MAX_TOKENS,5)"};
  for (const char* step : steps) {
    ASSERT_TRUE(test.engine.step());
    for (const auto& stream : streams) EXPECT_EQ(described(*stream), step);
  }
  EXPECT_FALSE(test.engine.step());
}

struct Variation {
  const char* name;
  int max_batch, step_tokens, block_tokens;
  uint64_t contexts;  // size of the pool, in full contexts
  int others, others_before;
  bool preempts;
};

Request subject() {
  Request request = test_request("subject", "once upon a time there was a fox.", 150);
  request.sampling = {.temperature = 1.1f,
                      .top_p = 0.95f,
                      .repetition_penalty = 1.2f,
                      .top_k = 30,
                      .seed = 77,
                      .top_logprobs = 2};
  request.stop = {"zzzz"};
  request.ignore_eos = true;
  return request;
}

// Bytes of `contexts` full contexts.
uint64_t pool_bytes(const Variation& v, TestKind kind) {
  const EngineOptions one{
      .max_batch = 1, .step_tokens = v.step_tokens, .block_tokens = v.block_tokens};
  return v.contexts * TestEngine(one, kind).engine.kv_bytes();
}

std::string answer(const Variation& v, TestKind kind = TestKind::kPlain) {
  TestEngine test({.max_batch = v.max_batch,
                   .step_tokens = v.step_tokens,
                   .block_tokens = v.block_tokens,
                   .kv_bytes = pool_bytes(v, kind)},
                  kind);
  std::mt19937 random(5);
  std::vector<std::shared_ptr<Reader>> others;
  const auto add_other = [&] {
    Request other = test_request("other" + std::to_string(others.size()), "", 0);
    other.prompt.resize(random() % 60 + 1);
    for (int32_t& id : other.prompt) id = static_cast<int32_t>(random() % kTestVocab);
    other.max_tokens = static_cast<int32_t>(random() % 150 + 1);
    other.ignore_eos = true;
    others.push_back(test.submit(std::move(other)));
  };
  for (int i = 0; i < v.others_before; ++i) add_other();
  for (int i = 0; i < v.others_before; ++i) test.engine.step();
  const auto stream = test.submit(subject());
  for (int i = v.others_before; i < v.others; ++i) {
    add_other();
    test.engine.step();
  }
  test.run_until_idle();
  EXPECT_EQ(test.engine.snapshot().preemptions > 0, v.preempts) << v.name;
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0) << v.name;
  for (const auto& other : others) EXPECT_EQ(last_of(*other).substr(0, 15), "end(MAX_TOKENS,");
  return described(*stream);
}

TEST(Engine, GivesOneAnswerWhateverElseRuns) {
  const std::string alone = answer({"alone", 32, 512, 16, 32, 0, 0, false});
  EXPECT_NE(alone.find("end(MAX_TOKENS,150)"), std::string::npos);
  const Variation variations[] = {
      {"beside 15", 32, 512, 16, 32, 15, 8, false},
      {"first of 16", 32, 512, 16, 32, 15, 0, false},
      {"prompt in chunks of 7", 1, 7, 16, 1, 0, 0, false},
      {"prompt token by token", 1, 1, 16, 1, 0, 0, false},
      {"chunks beside others", 16, 20, 16, 16, 15, 8, false},
      {"blocks of 1", 16, 100, 1, 16, 15, 8, false},
      {"preempted", 16, 512, 16, 1, 15, 8, true},
      {"preempted, in chunks", 16, 16, 4, 1, 15, 3, true},
      {"preempted, blocks of 1", 16, 512, 1, 2, 15, 15, true},
  };
  for (const Variation& v : variations) EXPECT_EQ(answer(v), alone) << v.name;
}

TEST(Engine, GivesOneAnswerWithWindowsAndWhenComputedAnew) {
  const Variation variations[] = {
      {"beside 15", 32, 512, 16, 32, 15, 8, false},
      {"prompt in chunks of 7", 1, 7, 16, 1, 0, 0, false},
      {"token by token, blocks of 1", 1, 1, 1, 1, 0, 0, false},
      {"chunks beside others", 16, 20, 16, 16, 15, 8, false},
      {"preempted, in chunks", 16, 16, 4, 1, 15, 3, true},
      {"preempted, blocks of 1", 16, 16, 1, 1, 15, 15, true},
  };
  for (const TestKind kind : {TestKind::kWindow, TestKind::kAlternating, TestKind::kLongrope}) {
    const std::string alone = answer({"alone", 32, 512, 16, 32, 0, 0, false}, kind);
    for (Variation v : variations) {
      SCOPED_TRACE(::testing::Message() << static_cast<int>(kind) << " " << v.name);
      EXPECT_EQ(answer(v, kind), alone);
    }
  }
}

TEST(Engine, HoldsNoMoreBlocksThanWindowsNeed) {
  constexpr int kPerBlock = 4, kStepTokens = 20, kContext = 2000;
  const struct {
    TestKind kind;
    int full_groups;
  } cases[] = {{TestKind::kWindow, 0}, {TestKind::kAlternating, 1}};
  for (const auto& c : cases) {
    TestEngine test({.context = kContext,
                     .max_batch = 2,
                     .step_tokens = kStepTokens,
                     .block_tokens = kPerBlock},
                    c.kind);
    Request request = test_request("long", "", 1000);
    request.prompt.assign(900, 3);
    request.ignore_eos = true;
    const auto stream = test.submit(std::move(request));
    while (test.engine.step()) {
      const EngineSnapshot s = test.engine.snapshot();
      const auto tokens = static_cast<int32_t>(s.tokens_out);
      all_events(*stream);
      // What the rows in flight see is kept.
      const int32_t rows = kStepTokens * kBackendInfo.steps_in_flight;
      const int32_t full = c.full_groups * (900 + tokens + kPerBlock) / kPerBlock;
      ASSERT_LE(s.blocks_used, full + (kTestWindow + rows) / kPerBlock + 1);
      ASSERT_LE(s.kv_usage, 1);
      ASSERT_EQ(s.kv_usage > 0, s.running > 0);
    }
    EXPECT_EQ(test.engine.snapshot().tokens_out, 1000u);
    EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
    EXPECT_EQ(test.engine.snapshot().kv_usage, 0);
  }
}

TEST(Engine, SizesGroupsByWhatTheirWindowsNeed) {
  const EngineOptions options{.context = 256, .max_batch = 4, .step_tokens = 16};
  // 39 tokens in a row touch 4 blocks of 16.
  EXPECT_EQ(TestEngine(options, TestKind::kWindow).engine.kv_bytes(), 4 * 4 * kBlockBytes);
  EXPECT_EQ(TestEngine(options, TestKind::kAlternating).engine.kv_bytes(),
            4 * (16 + 2 * 4) * kBlockBytes);
}

TEST(Engine, ComputesAnewWhereLongropeSwitches) {
  for (const int prompt : {kTestTrained - 5, kTestTrained, kTestTrained + 1}) {
    TestEngine test({.step_tokens = 32}, TestKind::kLongrope);
    Request request = test_request("a", "", 20);
    request.prompt.assign(static_cast<size_t>(prompt), 1);
    const auto stream = test.submit(std::move(request));
    test.run_until_idle();
    EXPECT_EQ(last_of(*stream), "end(MAX_TOKENS,20)");
    const auto steps_of = [](int tokens) { return (tokens + 31) / 32; };
    const bool crosses = prompt <= kTestTrained;
    const int anew = crosses ? steps_of(kTestTrained + 1) - 1 : 0;
    EXPECT_EQ(test.engine.snapshot().steps, static_cast<uint64_t>(steps_of(prompt) + 19 + anew));
  }
}

TEST(Engine, AnotherSeedIsAnotherAnswer) {
  TestEngine test;
  Request one = subject(), two = subject();
  two.job_id = "other";
  two.sampling.seed = 78;
  const auto a = test.submit(one), b = test.submit(two);
  test.run_until_idle();
  EXPECT_NE(described(*a), described(*b));
}

TEST(Engine, RefusesWhatTheQueueHasNoRoomFor) {
  TestEngine test({.max_batch = 1, .max_queue = 1});
  const auto running = test.submit(test_request("a", "a", 2));
  const auto waiting = test.submit(test_request("b", "a", 2));
  expect_refused(ErrorCode::kOverloaded, test, test_request("c", "a", 2));
  test.engine.step();
  EXPECT_EQ(test.engine.snapshot().running, 1);
  EXPECT_EQ(test.engine.snapshot().waiting, 1);
  expect_refused(ErrorCode::kOverloaded, test, test_request("c", "a", 2));
  test.engine.step();
  const auto later = test.submit(test_request("c", "a", 2));
  test.run_until_idle();
  EXPECT_EQ(last_of(*later), "end(MAX_TOKENS,2)");
}

TEST(Engine, RefusesAJobIdThatIsOpen) {
  TestEngine test;
  const auto stream = test.submit(test_request("a", "a", 2));
  expect_refused(ErrorCode::kConflict, test, test_request("a", "b", 2));
  test.engine.step();
  expect_refused(ErrorCode::kConflict, test, test_request("a", "b", 2));
  test.engine.step();
  EXPECT_EQ(last_of(*stream), "end(MAX_TOKENS,2)");
  test.submit(test_request("a", "b", 2));
}

TEST(Engine, HasFreedEverythingWhenTheEndIsTold) {
  TestEngine test;
  std::shared_ptr<Reader> first, second;
  first = test.engine.submit(test_request("a", "a", 2), [&] {
    while (const auto event = first->next()) {
      if (!std::holds_alternative<EndEvent>(*event)) continue;
      const EngineSnapshot s = test.engine.snapshot();
      EXPECT_EQ(s.running + s.blocks_used, 0);
      second = test.submit(test_request("a", "b", 1));
    }
  });
  test.run_until_idle();
  ASSERT_TRUE(second);
  EXPECT_EQ(described(*second), "started(1) token(c) end(MAX_TOKENS,1)");
}

TEST(Engine, RefusesARequestThatCannotRun) {
  TestEngine test;
  Request request = test_request("a", "", 1);
  expect_refused(ErrorCode::kBadRequest, test, request);
  for (const int32_t id : {-1, kTestVocab}) {
    request.prompt = {0, id};
    expect_refused(ErrorCode::kBadRequest, test, request);
  }
  request.prompt = {0, 0};
  request.max_tokens = 0;
  expect_refused(ErrorCode::kBadRequest, test, request);
  request.max_tokens = INT32_MAX;
  expect_refused(ErrorCode::kBadRequest, test, request);
  request.max_tokens = 255;
  expect_refused(ErrorCode::kBadRequest, test, request);
  request.max_tokens = 254;
  request.ignore_eos = true;
  const auto stream = test.submit(request);
  test.run_until_idle();
  EXPECT_EQ(last_of(*stream), "end(MAX_TOKENS,254)");
}

struct CancelCase {
  const char* name;
  int steps_before;
  const char* told_before;
};

TEST(Engine, CancelsWhereverTheRequestIs) {
  const CancelCase cases[] = {{"queued", 0, ""},
                              {"prefill", 2, "started(20)"},
                              {"decode", 6, "started(20) token(u) token(v)"}};
  for (const CancelCase& c : cases) {
    SCOPED_TRACE(c.name);
    TestEngine test({.max_batch = 4, .step_tokens = 4});
    const auto stream = test.submit(test_request("a", "abcdefghijklmnopqrst", 50));
    for (int i = 0; i < c.steps_before; ++i) test.engine.step();
    EXPECT_EQ(described(*stream), c.told_before);
    const uint64_t steps = test.engine.snapshot().steps;
    EXPECT_TRUE(test.engine.cancel("a"));
    EXPECT_FALSE(test.engine.step());
    EXPECT_EQ(described(*stream), "failed(CANCELLED)");
    EXPECT_EQ(test.engine.snapshot().steps, steps);
    EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
    EXPECT_EQ(test.engine.snapshot().running + test.engine.snapshot().waiting, 0);
  }
}

TEST(Engine, CancelsBehindAFullBatch) {
  TestEngine test({.max_batch = 1});
  const auto first = test.submit(test_request("a", "a", 3));
  const auto second = test.submit(test_request("b", "a", 3));
  test.engine.step();
  second->leave();
  test.engine.step();
  EXPECT_EQ(described(*second), "failed(CANCELLED)");
  test.run_until_idle();
  EXPECT_EQ(last_of(*first), "end(MAX_TOKENS,3)");
}

TEST(Engine, ACancelIsIdempotentAndKnowsWhatItNeverSaw) {
  TestEngine test;
  EXPECT_FALSE(test.engine.cancel("a"));
  const auto stream = test.submit(test_request("a", "a", 3));
  EXPECT_TRUE(test.engine.cancel("a"));
  EXPECT_TRUE(test.engine.cancel("a"));
  test.run_until_idle();
  EXPECT_EQ(described(*stream), "failed(CANCELLED)");
  EXPECT_TRUE(test.engine.cancel("a"));
  EXPECT_FALSE(test.engine.cancel("b"));
}

TEST(Engine, EndsASlowReaderAlone) {
  TestEngine test({.stream_events = 4});
  const auto slow = test.submit(test_request("slow", "a", 10));
  const auto quick = test.submit(test_request("quick", "a", 10));
  std::string text;
  while (test.engine.step()) text = described(*quick);
  EXPECT_EQ(text, "token(k) end(MAX_TOKENS,10)");
  EXPECT_EQ(described(*slow),
            "started(1) token(b) token(c) token(d) failed(INFERENCE_FAILED,retriable)");
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
}

TEST(Engine, AnAnswerInOnePieceHasNoSlowReader) {
  TestEngine test({.stream_events = 4});
  Request request = test_request("whole", "a", 10);
  request.in_one_piece = true;
  const auto stream = test.submit(std::move(request));
  test.run_until_idle();
  const std::vector<Event> events = all_events(*stream);
  EXPECT_EQ(events.size(), 12U);  // started, ten tokens, end
  EXPECT_EQ(described(events).substr(0, 20), "started(1) token(b) ");
}

TEST(Engine, AWakeUpThatThrowsEndsItsRequestAlone) {
  TestEngine test;
  const auto bad = test.engine.submit(test_request("bad", "a", 4),
                                      [] { throw std::runtime_error("no memory to post"); });
  const auto good = test.submit(test_request("good", "a", 4));
  test.run_until_idle();
  EXPECT_EQ(last_of(*good), "end(MAX_TOKENS,4)");
  EXPECT_EQ(last_of(*bad), "failed(INFERENCE_FAILED,retriable)");
  EXPECT_FALSE(test.engine.snapshot().failed);
}

TEST(Engine, TimesOutInTheQueueAndWhileDecoding) {
  TestEngine test({.max_batch = 1});
  Request running = test_request("a", "a", 50), queued = test_request("b", "a", 50);
  running.timeout = milliseconds(300);
  queued.timeout = milliseconds(100);
  const auto a = test.submit(running), b = test.submit(queued);
  test.engine.step();
  test.clock.advance(milliseconds(99));
  test.engine.step();
  EXPECT_EQ(described(*b), "");
  test.clock.advance(milliseconds(1));
  test.engine.step();
  EXPECT_EQ(described(*b), "failed(TIMEOUT,retriable)");
  test.clock.advance(milliseconds(200));
  EXPECT_FALSE(test.engine.step());
  EXPECT_EQ(described(*a), "started(1) token(b) token(c) token(d) failed(TIMEOUT,retriable)");
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
}

TEST(Engine, AStepWithoutMemoryLosesItsYoungestAndIsTriedAgain) {
  const ScopedEnvironment oom("LLORCH_FAKE_OOM_AT_STEP", "3");
  TestEngine test({.max_batch = 2, .steps_in_flight = 1});
  const auto a = test.submit(test_request("a", "a", 4));
  const auto b = test.submit(test_request("b", "b", 4));
  const auto c = test.submit(test_request("c", "c", 4));  // waits, so it is no part of the step
  test.run_until_idle();
  EXPECT_EQ(described(*a), "started(1) token(b) token(c) token(d) token(e) end(MAX_TOKENS,4)");
  EXPECT_EQ(described(*b), "started(1) token(c) token(d) failed(VRAM_OOM,retriable)");
  EXPECT_EQ(described(*c), "started(1) token(d) token(e) token(f) token(g) end(MAX_TOKENS,4)");
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
  EXPECT_FALSE(test.engine.snapshot().failed);
}

TEST(Engine, ALostDeviceEndsAllStreams) {
  const ScopedEnvironment fail("LLORCH_FAKE_FAIL_AT_STEP", "3");
  TestEngine test({.max_batch = 1});
  const auto running = test.submit(test_request("a", "a", 50));
  const auto waiting = test.submit(test_request("b", "a", 50));
  test.engine.step();
  test.engine.step();
  EXPECT_THROW(test.engine.step(), Error);
  EXPECT_EQ(described(*running), "started(1) token(b) token(c) failed(INFERENCE_FAILED,retriable)");
  EXPECT_EQ(described(*waiting), "failed(INFERENCE_FAILED,retriable)");
  const EngineSnapshot snapshot = test.engine.snapshot();
  EXPECT_TRUE(snapshot.failed);
  EXPECT_EQ(snapshot.running + snapshot.waiting + snapshot.blocks_used, 0);
  expect_refused(ErrorCode::kUnavailable, test, test_request("c", "a", 1));
  EXPECT_TRUE(test.engine.wait_drained(std::chrono::steady_clock::now()));
}

TEST(Engine, RunRethrowsWhatAStepThrew) {
  const ScopedEnvironment fail("LLORCH_FAKE_FAIL_AT_STEP", "2");
  TestEngine test;
  const auto stream = test.submit(test_request("a", "a", 50));
  EXPECT_THROW(test.engine.run(), Error);
  EXPECT_EQ(last_of(*stream), "failed(INFERENCE_FAILED,retriable)");
}

TEST(Engine, AWarmUpThatFailsThrows) {
  const ScopedEnvironment fail("LLORCH_FAKE_FAIL_AT_STEP", "2");
  TestEngine test;
  EXPECT_THROW(test.engine.warm_up(), Error);
}

TEST(Engine, AWarmUpLeavesNothing) {
  for (const int context : {2, 3, 8, 256}) {
    TestEngine test({.context = context});
    test.engine.warm_up();
    const EngineSnapshot s = test.engine.snapshot();
    EXPECT_EQ(s.running + s.waiting + s.blocks_used, 0);
    EXPECT_EQ(s.steps + s.tokens_in + s.tokens_out, 0u);
    EXPECT_FALSE(test.engine.cancel("warm-up"));
    const auto stream = test.submit(test_request("a", "a", 1));
    test.run_until_idle();
    EXPECT_EQ(described(*stream), "started(1) token(b) end(MAX_TOKENS,1)");
  }
}

TEST(Engine, DrainsWhatIsOpenAndRefusesTheRest) {
  TestEngine test({.max_batch = 1});
  const auto running = test.submit(test_request("a", "a", 2));
  const auto waiting = test.submit(test_request("b", "a", 2));
  const auto now = std::chrono::steady_clock::now();
  test.engine.step();
  test.engine.start_drain();
  expect_refused(ErrorCode::kUnavailable, test, test_request("c", "a", 2));
  EXPECT_FALSE(test.engine.wait_drained(now));
  test.run_until_idle();
  EXPECT_TRUE(test.engine.wait_drained(now));
  EXPECT_EQ(last_of(*running), "end(MAX_TOKENS,2)");
  EXPECT_EQ(last_of(*waiting), "end(MAX_TOKENS,2)");
}

TEST(Engine, StopEndsWhatIsLeft) {
  TestEngine test({.max_batch = 1});
  const auto running = test.submit(test_request("a", "a", 20));
  const auto waiting = test.submit(test_request("b", "a", 20));
  test.engine.step();
  const auto queued = test.submit(test_request("c", "a", 20));
  test.engine.stop();
  test.engine.stop();
  test.engine.run();
  EXPECT_EQ(described(*running), "started(1) token(b) failed(CANCELLED,retriable)");
  EXPECT_EQ(described(*waiting), "failed(CANCELLED,retriable)");
  EXPECT_EQ(described(*queued), "failed(CANCELLED,retriable)");
  expect_refused(ErrorCode::kUnavailable, test, test_request("d", "a", 1));
  EXPECT_TRUE(test.engine.wait_drained(std::chrono::steady_clock::now()));
}

TEST(Engine, ItsDestructorLeavesNoStreamOpen) {
  std::shared_ptr<Reader> stream;
  {
    TestEngine test;
    stream = test.submit(test_request("a", "a", 20));
  }
  EXPECT_EQ(described(*stream), "failed(CANCELLED,retriable)");
}

TEST(Engine, CountsWhatItDoes) {
  TestEngine test({.max_batch = 2, .kv_bytes = 2 * kContextBytes});
  EXPECT_EQ(test.engine.snapshot().blocks_total, 32);
  EXPECT_EQ(test.engine.kv_bytes(), 2 * kContextBytes);
  EXPECT_EQ(test.engine.context(), 256);
  std::vector<std::shared_ptr<Reader>> streams;
  for (const char* id : {"a", "b", "c"}) streams.push_back(test.submit(test_request(id, "!!.", 9)));
  EXPECT_EQ(test.engine.snapshot().waiting, 3);
  test.engine.step();
  EngineSnapshot s = test.engine.snapshot();
  EXPECT_EQ(s.running, 2);
  EXPECT_EQ(s.waiting, 1);
  EXPECT_EQ(s.blocks_used, 2);
  EXPECT_EQ(s.steps, 1u);
  EXPECT_EQ(s.tokens_in, 6u);
  EXPECT_EQ(s.tokens_out, 2u);
  test.run_until_idle();
  s = test.engine.snapshot();
  EXPECT_EQ(s.running + s.waiting + s.blocks_used, 0);
  EXPECT_EQ(s.steps, 10u);
  EXPECT_EQ(s.tokens_in, 9u);
  EXPECT_EQ(s.tokens_out, 12u);  // EOS is not counted
  EXPECT_FALSE(s.failed);
}

TEST(Engine, SaysWhenAStepHangsAndEndsItsStreams) {
  TestEngine test;
  test.clock.advance(std::chrono::hours(1));
  EXPECT_FALSE(test.engine.fail_stalled());
  const auto stream = test.submit(test_request("a", "a", 20));
  test.engine.step();
  test.clock.advance(milliseconds(60'001));
  EXPECT_TRUE(test.engine.snapshot().stalled);
  expect_refused(ErrorCode::kUnavailable, test, test_request("b", "a", 1));
  EXPECT_TRUE(test.engine.fail_stalled());
  EXPECT_EQ(described(*stream), "started(1) token(b) failed(INFERENCE_FAILED,retriable)");
  // The step ends after all: too late, the process is about to go.
  EXPECT_FALSE(test.engine.step());
  EXPECT_EQ(described(*stream), "");
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
  EXPECT_TRUE(test.engine.snapshot().stalled);
  expect_refused(ErrorCode::kUnavailable, test, test_request("b", "a", 1));
}

TEST(Engine, TellsWhatTheLastStepWasAt) {
  TestEngine test({.max_batch = 2, .steps_in_flight = 1});
  const auto a = test.submit(test_request("first", "abc", 20));
  test.engine.step();
  const std::string long_id(1000, 'x');
  const auto b = test.submit(test_request(long_id, "0123456789abcdefgh", 20));
  const auto c = test.submit(test_request("third", "a", 20));
  test.clock.advance(milliseconds(5));
  test.engine.step();
  const StepState step = test.engine.last_step();
  EXPECT_EQ(step.number, 2u);
  EXPECT_EQ(step.began, test.clock.now());
  EXPECT_EQ(step.running, 2);
  EXPECT_EQ(step.waiting, 1);
  EXPECT_EQ(step.blocks_used, 3);
  ASSERT_EQ(step.sequences.size(), 2u);
  const StepState::Part& first = step.sequences[0];
  EXPECT_EQ(first.job_id, "first");
  EXPECT_TRUE(first.decoding);
  EXPECT_EQ(first.computed, 3);
  EXPECT_EQ(first.known, 4);
  EXPECT_EQ(first.blocks, 1);
  const StepState::Part& second = step.sequences[1];
  EXPECT_EQ(second.job_id, long_id.substr(0, 128));
  EXPECT_FALSE(second.decoding);
  EXPECT_EQ(second.computed, 0);
  EXPECT_EQ(second.known, 18);
  EXPECT_EQ(second.blocks, 2);
}

TEST(Engine, SizesThePoolByWhatIsFree) {
  const struct {
    const char* name;
    std::optional<uint64_t> kv_bytes;
    uint64_t free_bytes, pool_bytes;
  } cases[] = {
      {"auto, plenty", {}, 1 << 30, 4 * kContextBytes},
      {"auto, a quarter of what is free", {}, 100 * kBlockBytes, 25 * kBlockBytes},
      {"given", 20 * kBlockBytes + 7, 1 << 30, 20 * kBlockBytes},
      {"given, more than a full batch needs", 1 << 30, 1 << 30, 4 * kContextBytes},
  };
  for (const auto& c : cases) {
    TestEngine test({.max_batch = 4, .kv_bytes = c.kv_bytes, .free_bytes = c.free_bytes});
    EXPECT_EQ(test.engine.kv_bytes(), c.pool_bytes) << c.name;
  }
}

TEST(Engine, SaysWhatIsShortWhenNoFullContextFits) {
  const struct {
    std::optional<uint64_t> kv_bytes;
    uint64_t free_bytes, needed, free;
  } cases[] = {
      {{}, 61'400, kContextBytes, 15'350},
      {kContextBytes - 1, 1 << 30, kContextBytes, kContextBytes - 1},
      {3 * kContextBytes, 2 * kContextBytes, 3 * kContextBytes, 2 * kContextBytes},
  };
  for (const auto& c : cases) {
    try {
      TestEngine test({.kv_bytes = c.kv_bytes, .free_bytes = c.free_bytes});
      ADD_FAILURE() << "the pool of " << c.needed << " bytes fits";
    } catch (const OutOfMemory& error) {
      EXPECT_EQ(error.needed_bytes(), c.needed);
      EXPECT_EQ(error.free_bytes(), c.free);
    }
  }
}

}  // namespace
}  // namespace llorch
