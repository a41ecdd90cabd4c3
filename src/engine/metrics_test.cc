// Every figure has exactly the value that the requests before it make.
#include "engine/metrics.h"

#include <gtest/gtest.h>

#include <utility>

#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;

uint64_t count(const Histogram& histogram) {
  uint64_t total = 0;
  for (const auto& bucket : histogram.buckets()) total += bucket;
  return total;
}

// Bucket counts as a text: "0 2 1".
std::string buckets(const Histogram& histogram) {
  std::string text;
  for (const auto& bucket : histogram.buckets()) {
    text += (text.empty() ? "" : " ") + std::to_string(bucket.load());
  }
  return text;
}

uint64_t outcomes(const EngineMetrics& metrics, Outcome outcome) {
  return metrics.outcomes[static_cast<size_t>(outcome)].value();
}

uint64_t outcomes(const EngineMetrics& metrics) {
  uint64_t total = 0;
  for (const Counter& counter : metrics.outcomes) total += counter.value();
  return total;
}

TEST(Histogram, ABoundBelongsToItsBucket) {
  Histogram histogram(std::vector<double>{1, 2});
  for (const double value : {0.5, 1.0, 1.5, 2.0, 2.5, 100.0}) histogram.observe(value);
  EXPECT_EQ(buckets(histogram), "2 2 2");
  EXPECT_DOUBLE_EQ(histogram.sum(), 107.5);
}

// As vLLM's build_1_2_5_buckets.
TEST(EngineMetrics, TokenBucketsEndWithTheContext) {
  EXPECT_EQ(EngineMetrics(100).request_prompt_tokens.bounds(),
            (std::vector<double>{1, 2, 5, 10, 20, 50, 100}));
  EXPECT_EQ(EngineMetrics(199).request_generation_tokens.bounds().back(), 100);
}

TEST(OpenRequests, CountsRunningAndWaiting) {
  OpenRequests open;
  const auto expect = [&](int running, int waiting) {
    EXPECT_EQ(open.read().running, running);
    EXPECT_EQ(open.read().waiting, waiting);
  };
  expect(0, 0);
  for (int i = 0; i < 3; ++i) open.arrived();
  expect(0, 3);
  open.update(2, 0);
  expect(2, 1);
  open.update(1, 1);
  expect(1, 1);
  open.update(0, 2);
  expect(0, 0);
}

TEST(EngineMetrics, ARequestThatEndsWell) {
  TestEngine test({.step_tokens = 32});
  const EngineMetrics& m = test.engine.metrics();
  const auto stream = test.submit(test_request("a", std::string(40, 'a'), 3));
  test.clock.advance(milliseconds(250));
  test.engine.step();  // 32 of 40 tokens
  test.clock.advance(milliseconds(500));
  test.engine.step();  // the rest, and a token
  test.clock.advance(milliseconds(125));
  test.engine.step();
  EXPECT_EQ(outcomes(m), 0);
  EXPECT_EQ(count(m.e2e_latency), 0);
  test.clock.advance(milliseconds(375));
  test.engine.step();

  EXPECT_EQ(outcomes(m, Outcome::kMaxTokens), 1);
  EXPECT_EQ(outcomes(m), 1);
  EXPECT_EQ(m.steps.value(), 4);
  EXPECT_EQ(m.tokens_in.value(), 40);
  EXPECT_EQ(m.tokens_out.value(), 3);
  EXPECT_EQ(count(m.step_tokens), 4);
  EXPECT_EQ(m.step_tokens.sum(), 32 + 8 + 1 + 1);
  EXPECT_EQ(count(m.time_to_first_token), 1);
  EXPECT_DOUBLE_EQ(m.time_to_first_token.sum(), 0.75);
  EXPECT_EQ(count(m.inter_token_latency), 2);
  EXPECT_DOUBLE_EQ(m.inter_token_latency.sum(), 0.5);
  const std::pair<const Histogram*, double> request_times[] = {{&m.e2e_latency, 1.25},
                                                               {&m.queue_time, 0.25},
                                                               {&m.prefill_time, 0.5},
                                                               {&m.decode_time, 0.5},
                                                               {&m.inference_time, 1},
                                                               {&m.inference_ms, 1000},
                                                               {&m.request_time_per_token, 0.25},
                                                               {&m.request_prompt_tokens, 40},
                                                               {&m.request_generation_tokens, 3}};
  for (const auto& [histogram, sum] : request_times) {
    EXPECT_EQ(count(*histogram), 1);
    EXPECT_DOUBLE_EQ(histogram->sum(), sum);
  }
}

TEST(EngineMetrics, AnEosIsAnEndButNoToken) {
  TestEngine test;
  const EngineMetrics& m = test.engine.metrics();
  const auto four = test.submit(test_request("four", ".", 50));
  test.run_until_idle();
  ASSERT_EQ(described(*four), "started(1) token(€) token(!) end(EOS,4)");
  EXPECT_EQ(m.tokens_out.value(), 4);
  EXPECT_EQ(count(m.time_to_first_token), 1);
  EXPECT_EQ(count(m.inter_token_latency), 3);
  const auto none = test.submit(test_request("none", "!", 50));
  test.run_until_idle();
  ASSERT_EQ(described(*none), "started(1) end(EOS,0)");
  EXPECT_EQ(m.tokens_out.value(), 4);
  EXPECT_EQ(count(m.time_to_first_token), 1);
  EXPECT_EQ(outcomes(m, Outcome::kEos), 2);
  EXPECT_EQ(count(m.request_generation_tokens), 2);
  EXPECT_EQ(m.request_generation_tokens.buckets()[0], 1);  // that of none
}

TEST(Outcome, FollowsFromTheLastEvent) {
  const auto end = [](StopReason reason) {
    return kOutcomeNames[static_cast<size_t>(outcome_of(EndEvent{reason, {}, 0, {}}))];
  };
  EXPECT_STREQ(end(StopReason::kMaxTokens), "max_tokens");
  EXPECT_STREQ(end(StopReason::kEos), "eos");
  EXPECT_STREQ(end(StopReason::kStopSequence), "stop_sequence");
  const auto failed = [](const char* code) {
    return kOutcomeNames[static_cast<size_t>(outcome_of(FailedEvent{code, "", true}))];
  };
  EXPECT_STREQ(failed("CANCELLED"), "cancelled");
  EXPECT_STREQ(failed("TIMEOUT"), "timeout");
  EXPECT_STREQ(failed("VRAM_OOM"), "vram_oom");
  EXPECT_STREQ(failed("INFERENCE_FAILED"), "inference_failed");
}

TEST(EngineMetrics, WhatIsCancelledOrLateHasAnOutcomeButNoLatency) {
  TestEngine test({.max_batch = 2, .step_tokens = 32});
  const EngineMetrics& m = test.engine.metrics();
  const auto decoding = test.submit(test_request("decoding", "ab", 100));
  const auto prefilling = test.submit(test_request("prefilling", std::string(100, 'a'), 5));
  const auto waiting = test.submit(test_request("waiting", "abc", 5));
  Request late = test_request("late", "abcd", 5);
  late.timeout = milliseconds(100);
  const auto late_stream = test.submit(std::move(late));
  test.engine.step();
  for (const char* job : {"decoding", "prefilling", "waiting"}) test.engine.cancel(job);
  test.clock.advance(milliseconds(100));
  test.run_until_idle();

  EXPECT_EQ(outcomes(m, Outcome::kCancelled), 3);
  EXPECT_EQ(outcomes(m, Outcome::kTimeout), 1);
  EXPECT_EQ(outcomes(m), 4);
  EXPECT_EQ(m.tokens_in.value(), 102);  // what waits has not been taken in
  EXPECT_EQ(m.tokens_out.value(), 1);
  EXPECT_EQ(count(m.time_to_first_token), 1);
  EXPECT_EQ(count(m.inter_token_latency), 0);
  EXPECT_EQ(count(m.e2e_latency), 0);
  EXPECT_EQ(count(m.request_prompt_tokens), 0);
}

TEST(EngineMetrics, AReaderThatIsTooSlowHasFailed) {
  TestEngine test({.stream_events = 2});
  const auto stream = test.submit(test_request("a", "ab", 9));
  test.run_until_idle();
  EXPECT_EQ(outcomes(test.engine.metrics(), Outcome::kInferenceFailed), 1);
  EXPECT_EQ(outcomes(test.engine.metrics()), 1);
}

TEST(EngineMetrics, TheWarmUpIsForgotten) {
  TestEngine test;
  test.engine.warm_up();
  const EngineMetrics& m = test.engine.metrics();
  EXPECT_EQ(outcomes(m) + m.steps.value() + m.tokens_in.value() + m.tokens_out.value(), 0);
  EXPECT_EQ(count(m.step_tokens) + count(m.time_to_first_token) + count(m.e2e_latency), 0);
}

// The clock is read in the middle of steps and submits, when requests are on their way from the
// intake to the scheduler.
TEST(EngineSnapshot, NoOpenRequestIsOutOfSight) {
  TestModel model(256, TestKind::kPlain);
  const Engine* looked_at = nullptr;
  int open = 0, looks = 0;
  EngineOptions options{.context = 256, .max_batch = 4};
  options.now = [&] {
    // A snapshot reads the clock too.
    if (const Engine* const engine = std::exchange(looked_at, nullptr)) {
      const EngineSnapshot now = engine->snapshot();
      looked_at = engine;
      EXPECT_EQ(now.running + now.waiting, open);
      ++looks;
    }
    return std::chrono::steady_clock::time_point(milliseconds(1));
  };
  Engine engine(model.backend, model.model, model.tokenizer, options);
  std::vector<std::shared_ptr<Reader>> streams;
  for (; open < 6; ++open) {
    streams.push_back(engine.submit(test_request("job" + std::to_string(open), "ab", 3), {}));
  }
  looked_at = &engine;
  engine.step();
  engine.step();
  EXPECT_EQ(engine.snapshot().running, 4);
  EXPECT_EQ(engine.snapshot().waiting, 2);
  EXPECT_GT(looks, 4);
  looked_at = nullptr;
}

}  // namespace
}  // namespace llorch
