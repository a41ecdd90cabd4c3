// Two steps in flight are seen in no answer, wherever a request ends, and leave nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;

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

Request endless(std::string job_id, std::string_view prompt, int32_t max_tokens) {
  Request request = test_request(std::move(job_id), prompt, max_tokens);
  request.ignore_eos = true;
  return request;
}

// Some begin as all others do.
Request any_request(Random& random, int context) {
  Request request;
  Random common(7);
  const int length = random.between(1, context / 2);
  const int shared = random.one_of({0, length / 2, length});
  for (int i = 0; i < length; ++i) {
    request.prompt.push_back((i < shared ? common : random).between(0, kTestVocab - 1));
  }
  const int32_t room = context - length;
  request.max_tokens = random.one_of({1, 2, 3, random.between(1, room), random.between(1, room)});
  Sampling& sampling = request.sampling;
  sampling.seed = static_cast<uint64_t>(random.between(0, 1 << 20));
  sampling.temperature = random.one_of({0.0f, 0.0f, 0.4f, 1.0f});
  sampling.top_k = random.one_of({0, 0, 5});
  sampling.top_logprobs = random.one_of({-1, -1, 0, 3});
  if (random.between(0, 9) == 0) sampling.repetition_penalty = 1.2f;
  request.ignore_eos = random.between(0, 2) > 0;
  request.priority = random.one_of({0, 0, 0, 1});
  if (random.between(0, 2) == 0) request.stop = {"jkl", "xy", "9a"};
  return request;
}

EngineOptions any_options(Random& random, TestKind kind, int context) {
  EngineOptions options{.context = context};
  options.max_batch = random.one_of({1, 3, 8});
  options.step_tokens = random.one_of({9, 20, 64, 512});
  options.block_tokens = random.one_of({1, 4, 16});
  options.speculate = random.between(0, 2) == 0;
  if (random.between(0, 1)) {
    EngineOptions one = options;
    one.max_batch = 1;
    one.step_tokens = std::max(options.step_tokens, options.max_batch);
    options.kv_bytes = TestEngine(one, kind).engine.kv_bytes() *
                       static_cast<uint64_t>(random.between(100, 250)) / 100;
  }
  return options;
}

struct Figures {
  uint64_t steps = 0, ahead = 0, preemptions = 0, hits = 0, drafted = 0, left = 0;
};

// The answers to requests that come while others run; of some the reader leaves.
std::vector<std::string> answers(const std::vector<Request>& requests, const EngineOptions& options,
                                 TestKind kind, std::optional<uint32_t> leaving, Figures* sum) {
  TestEngine test(options, kind);
  Random random(leaving.value_or(0));
  std::vector<std::shared_ptr<Reader>> readers;
  std::vector<std::string> all(requests.size());
  const auto step = [&] {
    if (leaving && !readers.empty() && random.between(0, 6) == 0) {
      const auto i = static_cast<size_t>(random.between(0, static_cast<int>(readers.size()) - 1));
      all[i] += described(*readers[i]);
      if (all[i].find("end(") == std::string::npos && all[i].find("failed") == std::string::npos) {
        readers[i]->leave();
        ++sum->left;
      }
    }
    return test.engine.step();
  };
  for (const Request& request : requests) {
    Request copy = request;
    copy.job_id = std::to_string(readers.size());
    readers.push_back(test.submit(std::move(copy)));
    for (int i = static_cast<int>(readers.size()) % 4; i > 0; --i) step();
  }
  while (step()) {
  }
  const EngineSnapshot snapshot = test.engine.snapshot();
  EXPECT_EQ(snapshot.blocks_used + snapshot.running + snapshot.waiting, 0);
  sum->steps += snapshot.steps;
  sum->ahead += snapshot.steps_ahead;
  sum->preemptions += snapshot.preemptions;
  sum->hits += snapshot.prefix_hit_tokens;
  sum->drafted += test.engine.metrics().draft_tokens.value();
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string rest = described(*readers[i]);
    all[i] += (all[i].empty() || rest.empty() ? "" : " ") + rest;
  }
  return all;
}

std::vector<Request> any_requests(Random& random, int context) {
  std::vector<Request> requests;
  for (int n = random.between(1, 12); n > 0; --n) requests.push_back(any_request(random, context));
  return requests;
}

TEST(EngineOverlap, ChangesNoAnswer) {
  constexpr int kContext = 160;
  Figures one, two;
  for (const TestKind kind : kTestKinds) {
    for (uint32_t seed = 0; seed < 40; ++seed) {
      SCOPED_TRACE("kind " + std::to_string(static_cast<int>(kind)) + ", seed " +
                   std::to_string(seed));
      Random random(seed);
      EngineOptions options = any_options(random, kind, kContext);
      const std::vector<Request> requests = any_requests(random, kContext);
      options.steps_in_flight = 1;
      const auto expected = answers(requests, options, kind, {}, &one);
      options.steps_in_flight = 2;
      ASSERT_EQ(answers(requests, options, kind, {}, &two), expected);
    }
  }
  EXPECT_EQ(one.ahead, 0u);
  EXPECT_GT(two.ahead, two.steps / 4);
  EXPECT_GT(two.preemptions, 20u);
  EXPECT_GT(two.hits, 1000u);
  EXPECT_GT(two.drafted, 1000u);
}

// Whoever stays gets the answer that it gets without those who leave; who leaves gets its
// beginning.
TEST(EngineOverlap, ChangesNoAnswerBesideThoseWhoLeave) {
  constexpr int kContext = 160;
  constexpr std::string_view kCancelled = " failed(CANCELLED)";
  Figures all, some;
  for (const TestKind kind : kTestKinds) {
    for (uint32_t seed = 100; seed < 130; ++seed) {
      SCOPED_TRACE("kind " + std::to_string(static_cast<int>(kind)) + ", seed " +
                   std::to_string(seed));
      Random random(seed);
      EngineOptions options = any_options(random, kind, kContext);
      const std::vector<Request> requests = any_requests(random, kContext);
      options.steps_in_flight = 1;
      const auto expected = answers(requests, options, kind, {}, &all);
      options.steps_in_flight = 2;
      const auto got = answers(requests, options, kind, seed, &some);
      for (size_t i = 0; i < got.size(); ++i) {
        std::string told = got[i];
        if (const auto at = told.find("failed(CANCELLED)"); at != std::string::npos) {
          ASSERT_EQ(at + kCancelled.size() - 1, told.size());
          told.resize(at == 0 ? 0 : at - 1);
          ASSERT_TRUE(expected[i].starts_with(told)) << told << "\n" << expected[i];
        } else {
          ASSERT_EQ(told, expected[i]);
        }
      }
    }
  }
  EXPECT_GT(some.left, 100u);
  EXPECT_GT(some.ahead, some.steps / 4);
}

EngineOptions two(bool speculate = false) {
  return {.max_batch = 4, .steps_in_flight = 2, .speculate = speculate, .block_tokens = 4};
}

TEST(EngineOverlap, RunsAheadInNearlyEveryStepOfDecoding) {
  TestEngine test(two());
  std::vector<std::shared_ptr<Reader>> readers;
  for (const char* id : {"a", "b", "c"}) readers.push_back(test.submit(endless(id, id, 100)));
  for (int i = 1; i <= 99; ++i) {
    ASSERT_TRUE(test.engine.step());
    ASSERT_EQ(test.engine.snapshot().steps, static_cast<uint64_t>(i));
    ASSERT_EQ(test.engine.snapshot().steps_ahead, static_cast<uint64_t>(i));
    ASSERT_EQ(test.engine.snapshot().tokens_out, static_cast<uint64_t>(3 * i));
  }
  test.run_until_idle();
  // The limit is known before: no row is computed for nothing.
  EXPECT_EQ(test.engine.snapshot().steps, 100u);
  EXPECT_EQ(test.engine.snapshot().steps_ahead, 99u);
  EXPECT_EQ(test.engine.metrics().step_tokens.sum(), 3 * 100);
}

TEST(EngineOverlap, PrefillsBesideAStepThatRuns) {
  EngineOptions options = two();
  options.step_tokens = 8;
  TestEngine test(options);
  const auto decoding = test.submit(endless("a", "a", 30));
  for (int i = 0; i < 5; ++i) test.engine.step();
  const auto prompt = test.submit(endless("b", "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr", 5));
  test.run_until_idle();
  EXPECT_TRUE(described(*decoding).ends_with("end(MAX_TOKENS,30)"));
  EXPECT_EQ(described(*prompt),
            "started(44) token(s) token(t) token(u) token(v) token(w) end(MAX_TOKENS,5)");
  // All but the first, and the one that the prompt was admitted to.
  EXPECT_EQ(test.engine.snapshot().steps_ahead, test.engine.snapshot().steps - 2);
}

uint64_t ahead_of(TestEngine& test, std::vector<Request> requests) {
  std::vector<std::shared_ptr<Reader>> readers;
  for (Request& request : requests) readers.push_back(test.submit(std::move(request)));
  test.run_until_idle();
  for (const auto& reader : readers) {
    EXPECT_NE(described(*reader).find(" end("), std::string::npos);
  }
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
  return test.engine.snapshot().steps_ahead;
}

TEST(EngineOverlap, WaitsWhereTheNextStepDependsOnTheToken) {
  TestEngine penalty(two()), drafts(two(true)), longrope(two(), TestKind::kLongrope);
  Request penalised = endless("a", "abc", 20);
  penalised.sampling.repetition_penalty = 1.1f;
  EXPECT_EQ(ahead_of(penalty, {penalised, endless("b", "b", 20)}), 0u);
  // Once it repeats itself there are drafts, and no step beside them.
  const uint64_t ahead = ahead_of(drafts, {endless("a", "a", 200)});
  EXPECT_GT(ahead, 30u);
  EXPECT_LT(ahead, 60u);
  EXPECT_GT(drafts.engine.metrics().right_draft_tokens.value(), 50u);
  // It begins anew at 65 tokens: the step before is collected first, and the next has the prompt.
  EXPECT_EQ(ahead_of(longrope, {endless("a", "abcd", 100)}), 99u - 1);
}

// The next in line gets the place at once, as without a step in flight.
TEST(EngineOverlap, WaitsForAPlaceThatGetsFree) {
  EngineOptions options = two();
  options.max_batch = 1;
  TestEngine test(options);
  EXPECT_EQ(ahead_of(test, {endless("a", "a", 10), endless("b", "b", 10)}), 2u * 9);
  EXPECT_EQ(test.engine.snapshot().steps, 20u);
}

// What is computed of a sequence that has ended is for nobody.
TEST(EngineOverlap, EndsAtTheSameTokenWhateverEndsIt) {
  struct End {
    const char* told;
    const char* prompt;
    int32_t max_tokens;
    std::vector<std::string> stop;
    int steps;
  };
  const End ends[] = {
      {"started(1) token(b) end(MAX_TOKENS,1)", "a", 1, {}, 1},
      {"started(1) token(b) token(c) end(MAX_TOKENS,2)", "a", 2, {}, 2},
      {"started(1) end(EOS,0)", "!", 9, {}, 1},
      {"started(1) token(!) end(EOS,4)", ".", 9, {}, 5},
      {"started(1) token(b) end(STOP_SEQUENCE,3,cd)", "a", 9, {"cd"}, 3},
      {"started(1) end(STOP_SEQUENCE,1,b)", "a", 9, {"b"}, 1},
  };
  for (const End& end : ends) {
    SCOPED_TRACE(end.told);
    for (const bool beside : {false, true}) {
      TestEngine test(two());
      Request request = test_request("subject", end.prompt, end.max_tokens);
      request.stop = end.stop;
      const auto reader = test.submit(std::move(request));
      const auto other = beside ? test.submit(endless("other", "a", 30)) : nullptr;
      std::string told;
      int steps = 0;
      for (; told.find(" end(") == std::string::npos; ++steps) {
        ASSERT_TRUE(test.engine.step());
        const std::string more = described(*reader);
        told += (told.empty() || more.empty() ? "" : " ") + more;
      }
      EXPECT_EQ(steps, end.steps);
      if (told.find("EOS,4") == std::string::npos) {
        EXPECT_EQ(told, end.told);
      }
      EXPECT_EQ(test.engine.snapshot().running, beside ? 1 : 0);
      test.run_until_idle();
      EXPECT_EQ(test.engine.snapshot().steps, static_cast<uint64_t>(beside ? 30 : end.steps));
      EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
      EXPECT_EQ(described(*reader), "");
      if (other) {
        EXPECT_TRUE(described(*other).ends_with("end(MAX_TOKENS,30)"));
      }
    }
  }
}

// Its blocks go at once, to one whose tokens must not be those that the step in flight writes.
TEST(EngineOverlap, GivesTheBlocksOfOneThatHasEndedToTheNext) {
  for (const TestKind kind : kTestKinds) {
    for (int steps = 1; steps < 40; ++steps) {
      EngineOptions options = two();
      options.context = 64;
      options.max_batch = 2;
      options.kv_bytes =
          TestEngine({.context = 64, .max_batch = 1, .block_tokens = 4}, kind).engine.kv_bytes();
      TestEngine test(options, kind);
      const auto first = test.submit(endless("first", "abc", 50));
      for (int i = 0; i < steps; ++i) test.engine.step();
      EXPECT_TRUE(test.engine.cancel("first"));
      const auto second = test.submit(endless("second", "abcdefghijkl", 40));
      test.engine.step();
      EXPECT_TRUE(described(*first).ends_with("failed(CANCELLED)"));
      const auto third = test.submit(endless("third", "abcdefgh", 50));
      test.run_until_idle();
      EXPECT_TRUE(described(*second).ends_with("end(MAX_TOKENS,40)"));
      EXPECT_TRUE(described(*third).ends_with("end(MAX_TOKENS,50)"));
      EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
    }
  }
}

TEST(EngineOverlap, ACancelledOneHasNoRowInAStepSubmittedLater) {
  TestEngine test(two());
  const auto subject = test.submit(endless("subject", "a", 50));
  const auto other = test.submit(endless("other", "k", 10));
  for (int i = 0; i < 4; ++i) test.engine.step();
  const double rows = test.engine.metrics().step_tokens.sum();
  EXPECT_TRUE(test.engine.cancel("subject"));
  for (int i = 4; i < 10; ++i) {
    test.engine.step();
    const StepState state = test.engine.last_step();
    ASSERT_EQ(state.sequences.size(), 1u);
    EXPECT_EQ(state.sequences[0].job_id, "other");
    EXPECT_EQ(state.number, static_cast<uint64_t>(std::min(i + 2, 10)));
  }
  EXPECT_FALSE(test.engine.step());
  EXPECT_EQ(test.engine.metrics().step_tokens.sum(), rows + 6);
  EXPECT_EQ(described(*subject),
            "started(1) token(b) token(c) token(d) token(e) failed(CANCELLED)");
  EXPECT_TRUE(described(*other).ends_with("end(MAX_TOKENS,10)"));
}

class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* key, const std::string& value) : key_(key) {
    setenv(key, value.c_str(), 1);
  }
  ~ScopedEnvironment() { unsetenv(key_); }

 private:
  const char* key_;
};

TEST(EngineOverlap, ALostDeviceEndsAllStreams) {
  for (int at = 1; at < 8; ++at) {
    const ScopedEnvironment fail("LLORCH_FAKE_FAIL_AT_STEP", std::to_string(at));
    TestEngine test(two());
    const auto a = test.submit(endless("a", "a", 50)), b = test.submit(endless("b", "b", 50));
    for (int i = 1; i < at; ++i) test.engine.step();
    EXPECT_THROW(test.engine.step(), Error);
    for (const auto& reader : {a, b}) {
      const std::vector<Event> events = all_events(*reader);
      EXPECT_EQ(events.size(), static_cast<size_t>(at + 1));
      EXPECT_EQ(described({events.back()}), "failed(INFERENCE_FAILED,retriable)");
    }
    EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
    EXPECT_TRUE(test.engine.snapshot().failed);
  }
}

// One that is not found for a step ahead hurts nobody, else the youngest of the step.
TEST(EngineOverlap, OutlivesASubmitWithoutMemory) {
  int hurt = 0;
  for (int at = 1; at < 12; ++at) {
    const ScopedEnvironment oom("LLORCH_FAKE_OOM_AT_STEP", std::to_string(at));
    TestEngine test(two());
    const auto a = test.submit(test_request("a", "a", 5)),
               b = test.submit(test_request("b", "b", 4));
    test.run_until_idle();
    EXPECT_EQ(described(*a),
              "started(1) token(b) token(c) token(d) token(e) token(f) end(MAX_TOKENS,5)");
    const std::string told = described(*b);
    hurt += told.ends_with("failed(VRAM_OOM,retriable)");
    EXPECT_TRUE(told.ends_with("failed(VRAM_OOM,retriable)") ||
                told == "started(1) token(c) token(d) token(e) token(f) end(MAX_TOKENS,4)");
    EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
    EXPECT_FALSE(test.engine.snapshot().failed);
  }
  EXPECT_EQ(hurt, 1);
}

TEST(EngineOverlap, AStepInFlightOutlivesNoEngine) {
  TestModel model(64);
  for (int steps = 0; steps < 4; ++steps) {
    std::shared_ptr<Reader> reader;
    {
      EngineOptions options = two();
      options.context = 64;
      Engine engine(model.backend, model.model, model.tokenizer, options);
      reader = engine.submit(endless("a", "a", 20), {});
      for (int i = 0; i < steps; ++i) engine.step();
      engine.stop();
      if (steps % 2 == 0) engine.run();
    }
    EXPECT_TRUE(described(*reader).ends_with("failed(CANCELLED,retriable)"));
    EXPECT_TRUE(model.backend.collect().empty());
  }
}

// All that the meter shows is somebody's: what was computed for one that had ended is its own.
TEST(EngineOverlap, ARowForNothingIsPaidByItsSequence) {
  const ScopedEnvironment meter("LLORCH_FAKE_STEP_JOULES", "12");
  TestEngine test(two());
  Request stops = endless("stops", "a", 30);
  stops.stop = {"e"};
  const auto subject = test.submit(std::move(stops)), other = test.submit(endless("b", "k", 10));
  test.run_until_idle();
  const auto energy = [](Reader& reader) {
    return std::get<EndEvent>(all_events(reader).back()).energy_j.value();
  };
  EXPECT_DOUBLE_EQ(energy(*subject), 4 * 6 + 6);  // its fifth row is one of two too
  EXPECT_DOUBLE_EQ(energy(*other), 5 * 6 + 5 * 12);
}

}  // namespace
}  // namespace llorch
