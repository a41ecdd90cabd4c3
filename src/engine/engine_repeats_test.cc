// One generation for each job, however often and by how many it is asked for: attaching, replays,
// resuming, and what is kept for how long.
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Request job(const char* id, int32_t max_tokens, const char* fingerprint = "body") {
  Request request = test_request(id, "a", max_tokens);
  request.fingerprint = fingerprint;
  return request;
}
Request resumable(const char* id, int32_t max_tokens) {
  Request request = job(id, max_tokens);
  request.resumable = true;
  return request;
}
Request resumed(Request request, uint64_t last_event_id) {
  request.last_event_id = last_event_id;
  return request;
}

void expect_refused(ErrorCode code, TestEngine& test, Request request) {
  try {
    test.submit(std::move(request));
    ADD_FAILURE() << "accepted; wanted " << name(code);
  } catch (const Error& error) {
    EXPECT_STREQ(name(error.code()), name(code)) << error.what();
  }
}

uint64_t generations(TestEngine& test) { return test.engine.metrics().tokens_in.value(); }

constexpr char kThree[] = "started(1) token(b) token(c) token(d) end(MAX_TOKENS,3)";

TEST(Repeats, AttachWhereverTheJobIs) {
  TestEngine test;
  std::vector<std::shared_ptr<Reader>> readers;
  for (int i = 0; i < 5; ++i) {
    readers.push_back(test.submit(job("a", 3)));
    EXPECT_EQ(readers.back()->first(), i == 0);
    test.engine.step();
  }
  for (const auto& reader : readers) EXPECT_EQ(described(*reader), kThree);
  EXPECT_EQ(generations(test), 1u);
}

// The very events: whatever is written from them is the same to the byte.
TEST(Repeats, ReadTheOriginalsEvents) {
  TestEngine test;
  Request original = job("a", 3), repeat = job("a", 3);
  original.sampling.seed = 1;
  repeat.sampling.seed = 2;
  const auto first = test.submit(original), second = test.submit(repeat);
  test.run_until_idle();
  const auto third = test.submit(repeat);
  while (const auto event = first->next()) {
    EXPECT_EQ(event, second->next());
    EXPECT_EQ(event, third->next());
  }
  EXPECT_TRUE(first->at_end() && second->at_end() && third->at_end());
  EXPECT_EQ(std::get<StartedEvent>(*test.submit(repeat)->next()).seed, 1u);
}

TEST(Repeats, AreOneGenerationHoweverMany) {
  TestEngine test({.max_batch = 2, .max_queue = 0});
  std::vector<std::shared_ptr<Reader>> readers;
  for (int i = 0; i < 100; ++i) readers.push_back(test.submit(job("a", 3)));
  test.run_until_idle();
  for (const auto& reader : readers) EXPECT_EQ(described(*reader), kThree);
  EXPECT_EQ(generations(test), 1u);
}

TEST(Repeats, AttachWhenTheQueueIsFullAndWhileDraining) {
  TestEngine test({.max_batch = 1, .max_queue = 0});
  const auto first = test.submit(job("a", 3));
  expect_refused(ErrorCode::kOverloaded, test, job("b", 3));
  const auto second = test.submit(job("a", 3));
  test.engine.start_drain();
  expect_refused(ErrorCode::kUnavailable, test, job("b", 3));
  const auto third = test.submit(job("a", 3));
  test.run_until_idle();
  for (const auto& reader : {first, second, third}) EXPECT_EQ(described(*reader), kThree);
  EXPECT_EQ(described(*test.submit(job("a", 3))), kThree);
}

TEST(Repeats, AnotherBodyConflictsOnlyWhileTheJobRuns) {
  TestEngine test;
  const auto first = test.submit(job("a", 3));
  expect_refused(ErrorCode::kConflict, test, job("a", 3, "another"));
  expect_refused(ErrorCode::kConflict, test, job("a", 3, ""));
  test.engine.step();
  expect_refused(ErrorCode::kConflict, test, job("a", 3, "another"));
  test.run_until_idle();
  const auto other = test.submit(job("a", 2, "another"));
  EXPECT_TRUE(other->first());
  expect_refused(ErrorCode::kConflict, test, job("a", 3));
  test.run_until_idle();
  EXPECT_EQ(described(*other), "started(1) token(b) token(c) end(MAX_TOKENS,2)");
  EXPECT_TRUE(test.submit(job("a", 3))->first());  // its answer has given way
}

TEST(Repeats, WithoutAFingerprintThereAreNone) {
  TestEngine test;
  const auto first = test.submit(job("a", 3, ""));
  expect_refused(ErrorCode::kConflict, test, job("a", 3, ""));
  test.run_until_idle();
  EXPECT_TRUE(test.submit(job("a", 3, ""))->first());
}

TEST(Repeats, CancelledAndFailedJobsAreNotKept) {
  TestEngine test;
  auto first = test.submit(job("a", 50));
  test.engine.step();
  test.engine.cancel("a");
  test.run_until_idle();
  EXPECT_EQ(described(*first), "started(1) token(b) failed(CANCELLED)");
  Request late = job("a", 3);
  late.timeout = milliseconds(100);
  auto second = test.submit(late);
  EXPECT_TRUE(second->first());
  test.clock.advance(milliseconds(100));
  test.run_until_idle();
  EXPECT_EQ(described(*second), "failed(TIMEOUT,retriable)");
  auto third = test.submit(job("a", 3));
  EXPECT_TRUE(third->first());
  test.run_until_idle();
  EXPECT_EQ(described(*third), kThree);
}

// The client that lost its connection and asks again at once must not get the cancelled job's end.
TEST(Repeats, ACancelledJobsIdIsFreeAtOnce) {
  TestEngine test;
  auto first = test.submit(job("a", 50));
  test.engine.step();
  first.reset();
  const auto again = test.submit(job("a", 3));
  EXPECT_TRUE(again->first());
  test.engine.cancel("a");
  const auto other = test.submit(job("a", 2, "another"));
  EXPECT_TRUE(other->first());
  test.run_until_idle();
  EXPECT_EQ(described(*again), "failed(CANCELLED)");
  EXPECT_EQ(described(*other), "started(1) token(b) token(c) end(MAX_TOKENS,2)");
  EXPECT_FALSE(test.submit(job("a", 2, "another"))->first());
  EXPECT_TRUE(test.engine.wait_drained(std::chrono::steady_clock::now()));
}

TEST(Repeats, AnAnswerIsKeptForTheRetention) {
  TestEngine test({.result_retention = seconds(300)});
  const auto first = test.submit(job("a", 3)), other = test.submit(job("b", 3));
  test.run_until_idle();
  test.clock.advance(milliseconds(299'999));
  EXPECT_EQ(described(*test.submit(job("a", 3))), kThree);
  EXPECT_TRUE(test.engine.cancel("a"));
  EXPECT_EQ(described(*test.submit(job("a", 3))), kThree);  // the late cancel changed nothing
  test.clock.advance(milliseconds(1));
  EXPECT_TRUE(test.submit(job("a", 3))->first());
  EXPECT_FALSE(test.engine.cancel("b"));
}

TEST(Repeats, AnAnswerThatHasGivenWayIsGone) {
  TestEngine test({.context = 2000});
  const auto first = test.submit(job("a", 3));
  test.run_until_idle();
  Request longer = job("a", 1000, "another");
  longer.ignore_eos = true;
  const auto second = test.submit(longer);
  test.engine.step();
  test.clock.advance(seconds(300));
  test.engine.expire();
  EXPECT_FALSE(test.submit(longer)->first());
  test.clock.advance(seconds(300));
  test.run_until_idle();
  EXPECT_FALSE(test.submit(longer)->first());
}

// The engine has the last token already, so there is nothing left to cancel.
TEST(Repeats, WhoLeavesWithTheLastTokenCancelsNothing) {
  TestEngine test;
  std::shared_ptr<Reader> reader;
  reader = test.engine.submit(job("a", 1), [&] {
    while (const auto event = reader ? reader->next() : nullptr) {
      if (std::holds_alternative<TokenEvent>(*event)) reader.reset();
    }
  });
  test.run_until_idle();
  EXPECT_FALSE(reader);
  EXPECT_EQ(described(*test.submit(job("a", 1))), "started(1) token(b) end(MAX_TOKENS,1)");
  EXPECT_EQ(generations(test), 1u);
}

TEST(Repeats, NothingIsKeptWithoutRetention) {
  TestEngine test({.result_retention = seconds(0)});
  const auto first = test.submit(job("a", 3));
  const auto second = test.submit(job("a", 3));
  test.run_until_idle();
  EXPECT_EQ(described(*second), kThree);
  EXPECT_FALSE(test.engine.cancel("a"));
  EXPECT_TRUE(test.submit(job("a", 3))->first());
}

// An event lives as long as somebody holds it: the store, or a reader.
TEST(Repeats, WhatHasExpiredIsFreedThoughNothingArrives) {
  TestEngine test;
  auto reader = test.submit(job("a", 3));
  test.run_until_idle();
  const std::weak_ptr<const Event> event = reader->next();
  reader.reset();
  test.engine.expire();
  EXPECT_FALSE(event.expired());
  test.clock.advance(seconds(300));
  test.engine.expire();
  EXPECT_TRUE(event.expired());
}

TEST(Repeats, TheOldestAnswersGiveWay) {
  TestEngine test({.retained_bytes = 16 * 1024});
  std::vector<std::weak_ptr<const Event>> events;
  const auto run = [&](int i) {
    const auto reader = test.submit(job(("job" + std::to_string(i)).c_str(), 10));
    EXPECT_TRUE(reader->first());
    test.run_until_idle();
    events.push_back(reader->next());
  };
  int kept = 0;
  for (; events.empty() || !events.front().expired(); ++kept) run(kept);
  // Each takes 12 events of more than 100 bytes, but less than 4 KiB with all around them.
  EXPECT_GT(kept, 4);
  EXPECT_LT(kept, 14);
  run(kept);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].expired(), i < 2) << i;
  EXPECT_FALSE(test.engine.cancel("job0"));
  EXPECT_TRUE(test.engine.cancel("job" + std::to_string(kept)));
}

TEST(Repeats, WhatTheStoreCannotHoldIsNotKept) {
  TestEngine test({.retained_bytes = 1024});
  const auto first = test.submit(job("a", 20));
  test.run_until_idle();
  EXPECT_EQ(all_events(*first).size(), 22u);
  EXPECT_TRUE(test.submit(job("a", 20))->first());
}

TEST(Repeats, AReplayUnderWayOutlivesItsRetention) {
  TestEngine test;
  const auto first = test.submit(job("a", 3));
  test.run_until_idle();
  const auto replay = test.submit(job("a", 3));
  replay->next();
  test.clock.advance(seconds(300));
  test.engine.expire();
  EXPECT_EQ(described(*replay), "token(b) token(c) token(d) end(MAX_TOKENS,3)");
}

TEST(Repeats, ACancelEndsTheJobForAllItsReaders) {
  TestEngine test;
  const auto first = test.submit(job("a", 50)), second = test.submit(job("a", 50));
  test.engine.step();
  EXPECT_TRUE(test.engine.cancel("a"));
  EXPECT_FALSE(test.engine.step());
  for (const auto& reader : {first, second}) {
    EXPECT_EQ(described(*reader), "started(1) token(b) failed(CANCELLED)");
  }
}

TEST(Repeats, TheLastReadersLeavingCounts) {
  TestEngine test;
  auto first = test.submit(job("a", 50)), second = test.submit(job("a", 50));
  test.engine.step();
  first.reset();
  EXPECT_TRUE(test.engine.step());
  second.reset();
  EXPECT_FALSE(test.engine.step());
  EXPECT_EQ(test.engine.snapshot().blocks_used, 0);
}

TEST(Repeats, ASlowReaderIsCutOffAlone) {
  TestEngine test({.stream_events = 4});
  const auto slow = test.submit(job("a", 10)), quick = test.submit(job("a", 10));
  std::string last;
  while (test.engine.step()) last = described(*quick);
  EXPECT_EQ(last, "token(k) end(MAX_TOKENS,10)");
  EXPECT_EQ(described(*slow),
            "started(1) token(b) token(c) token(d) failed(INFERENCE_FAILED,retriable)");
  EXPECT_EQ(all_events(*test.submit(job("a", 10))).size(), 12u);
}

TEST(Resume, GivesEveryEventOnceFromEveryCut) {
  TestEngine test;
  const auto first = test.submit(job("a", 5));
  test.run_until_idle();
  const std::vector<Event> all = all_events(*first);
  ASSERT_EQ(all.size(), 7u);
  for (size_t cut = 1; cut <= all.size(); ++cut) {
    std::vector<Event> events(all.begin(), all.begin() + static_cast<ptrdiff_t>(cut));
    const auto rest = test.submit(resumed(job("a", 5), cut - 1));
    for (const Event& event : all_events(*rest)) events.push_back(event);
    EXPECT_EQ(described(events), described(all));
    EXPECT_EQ(rest->at_end(), true);
  }
  EXPECT_EQ(generations(test), 1u);
}

TEST(Resume, ARunningJobGoesOnFromWhereItWas) {
  TestEngine test;
  auto first = test.submit(resumable("a", 5));
  test.engine.step();
  EXPECT_EQ(described(*first), "started(1) token(b)");
  first.reset();
  test.engine.step();
  const auto second = test.submit(resumed(resumable("a", 5), 1));
  EXPECT_EQ(described(*second), "token(c)");
  test.run_until_idle();
  EXPECT_EQ(described(*second), "token(d) token(e) token(f) end(MAX_TOKENS,5)");
  EXPECT_EQ(generations(test), 1u);
}

TEST(Resume, RefusesWhatItDoesNotKnow) {
  TestEngine test;
  expect_refused(ErrorCode::kNotFound, test, resumed(job("a", 5), 0));
  const auto first = test.submit(resumable("a", 5));
  expect_refused(ErrorCode::kBadRequest, test, resumed(resumable("a", 5), 0));
  test.engine.step();
  expect_refused(ErrorCode::kBadRequest, test, resumed(resumable("a", 5), 2));
  expect_refused(ErrorCode::kBadRequest, test, resumed(resumable("a", 5), UINT64_MAX));
  expect_refused(ErrorCode::kConflict, test, resumed(job("a", 5, "another"), 1));
  EXPECT_EQ(described(*test.submit(resumed(resumable("a", 5), 1))), "");
  test.engine.cancel("a");
  expect_refused(ErrorCode::kNotFound, test, resumed(resumable("a", 5), 1));
  test.run_until_idle();
  expect_refused(ErrorCode::kNotFound, test, resumed(resumable("a", 5), 1));
}

TEST(Resume, TheGraceIsTheTimeWithoutReaders) {
  TestEngine test({.context = 2000, .resume_grace = seconds(60)});
  auto reader = test.submit(resumable("a", 1000));
  const auto runs_on = [&] { return test.engine.step(); };
  EXPECT_TRUE(runs_on());
  reader.reset();
  EXPECT_TRUE(runs_on());
  test.clock.advance(milliseconds(59'999));
  EXPECT_TRUE(runs_on());
  reader = test.submit(resumable("a", 1000));
  test.clock.advance(seconds(1000));
  EXPECT_TRUE(runs_on());
  reader.reset();
  EXPECT_TRUE(runs_on());
  test.clock.advance(milliseconds(59'999));
  EXPECT_TRUE(runs_on());
  test.clock.advance(milliseconds(1));
  EXPECT_FALSE(runs_on());
  EXPECT_EQ(test.engine.metrics().outcomes[static_cast<size_t>(Outcome::kCancelled)].value(), 1u);
  EXPECT_TRUE(test.submit(resumable("a", 3))->first());
}

TEST(Resume, AJobWithoutReadersEndsAndIsKept) {
  TestEngine test;
  test.submit(resumable("a", 3));
  test.run_until_idle();
  const auto later = test.submit(resumed(resumable("a", 3), 1));
  EXPECT_EQ(described(*later), "token(c) token(d) end(MAX_TOKENS,3)");
}

TEST(Resume, WithoutGraceAReaderThatLeavesEndsTheJob) {
  TestEngine test({.resume_grace = seconds(0)});
  test.submit(resumable("a", 3));
  EXPECT_FALSE(test.engine.step());
}

// A shutdown waits for work, not for readers that may come back.
TEST(Resume, ADrainWaitsForTheJobAndNotForItsGrace) {
  TestEngine test;
  test.submit(resumable("a", 3));
  test.engine.start_drain();
  EXPECT_FALSE(test.engine.wait_drained(std::chrono::steady_clock::now()));
  test.run_until_idle();
  EXPECT_TRUE(test.engine.wait_drained(std::chrono::steady_clock::now()));
}

TEST(JobSummary, IsToldOnceWithTheJobsOwnFigures) {
  TestEngine test;
  std::vector<std::string> told;
  Request request = job("a", 3);
  request.on_end = [&](const JobSummary& s) {
    told.push_back(described({s.terminal}) + " queued " + std::to_string(s.queued.count()) +
                   " first " + std::to_string(s.to_first_token.count()) + " total " +
                   std::to_string(s.total.count()) + " readers " + std::to_string(s.readers));
  };
  const auto first = test.submit(request);
  const auto second = test.submit(request);
  test.clock.advance(milliseconds(10));
  while (test.engine.step()) test.clock.advance(milliseconds(100));
  const auto third = test.submit(request);
  test.run_until_idle();
  EXPECT_EQ(told,
            std::vector<std::string>{"end(MAX_TOKENS,3) queued 10 first 10 total 210 readers 2"});
}

}  // namespace
}  // namespace llorch
