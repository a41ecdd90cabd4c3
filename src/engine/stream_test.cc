#include "engine/stream.h"

#include <gtest/gtest.h>

#include <string>

#include "engine/test_engine.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Stream::TimePoint kNow{};

TokenEvent token(std::string text) { return {std::move(text), 0, {}, {}}; }
std::shared_ptr<Stream> stream_of(const StreamOptions& options = {}) {
  return std::make_shared<Stream>(options);
}
constexpr char kTooSlow[] = "failed(INFERENCE_FAILED,retriable)";
constexpr char kHasLeft[] = "failed(CANCELLED)";

TEST(Stream, GivesEventsInOrder) {
  const auto stream = stream_of();
  const auto reader = stream->attach({});
  EXPECT_FALSE(reader->next());
  EXPECT_TRUE(stream->push(token("a")));
  EXPECT_TRUE(stream->push(token("b")));
  EXPECT_EQ(described(*reader), "token(a) token(b)");
  EXPECT_EQ(reader->position(), 2u);
  EXPECT_FALSE(reader->next());
}

TEST(Stream, WakesOnlyAReaderThatHadReadAll) {
  const auto stream = stream_of();
  int woken = 0, others = 0;
  const auto reader = stream->attach([&] { ++woken; });
  const auto other = stream->attach([&] { ++others; });
  stream->push(token("a"));
  stream->push(token("b"));
  EXPECT_EQ(woken, 1);
  reader->next();
  stream->push(token("c"));
  EXPECT_EQ(woken, 1);
  all_events(*reader);
  stream->push(token("d"));
  EXPECT_EQ(woken, 2);
  EXPECT_EQ(others, 1);
}

TEST(Stream, CanBeReadFromTheWakeUp) {
  const auto stream = stream_of();
  std::string text;
  std::shared_ptr<Reader> reader;
  reader = stream->attach([&] {
    while (const auto event = reader->next()) text += std::get<TokenEvent>(*event).text;
  });
  stream->push(token("a"));
  stream->push(token("b"));
  EXPECT_EQ(text, "ab");
}

TEST(Stream, AWakeUpMayLeaveAndAttach) {
  const auto stream = stream_of({.keep = true});
  std::shared_ptr<Reader> first, second;
  first = stream->attach([&] {
    second = stream->attach({});
    first.reset();
  });
  stream->push(token("a"));
  EXPECT_FALSE(first);
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kNone);
  EXPECT_EQ(described(*second), "token(a)");
}

TEST(Stream, EndsOnce) {
  const auto stream = stream_of();
  const auto reader = stream->attach({});
  EXPECT_TRUE(stream->push(EndEvent{}));
  EXPECT_FALSE(stream->push(FailedEvent{"CANCELLED", "", false}));
  EXPECT_FALSE(stream->push(token("late")));
  EXPECT_EQ(described(*reader), "end(MAX_TOKENS,0)");
  EXPECT_EQ(reader->position(), 1u);
  EXPECT_EQ(stream->size(), 1u);
}

TEST(Stream, KeepsTheFirstCauseOfACancel) {
  const auto stream = stream_of();
  const auto reader = stream->attach({});
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kNone);
  stream->cancel(CancelCause::kStalled);
  stream->cancel(CancelCause::kClient);
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kStalled);
  EXPECT_FALSE(stream->attach({}));
}

TEST(Stream, CutsOffAReaderThatIsTooFarBehind) {
  const auto stream = stream_of({.reader_events = 2});
  const auto reader = stream->attach({});
  stream->push(token("a"));
  stream->push(token("b"));
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kNone);
  stream->push(token("c"));
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kSlowReader);
  stream->push(FailedEvent{"CANCELLED", "", false});
  EXPECT_EQ(described(*reader), std::string("token(a) token(b) ") + kTooSlow);
  EXPECT_EQ(reader->position(), 2u);
  EXPECT_FALSE(reader->next());
}

TEST(Stream, TheEndHasRoomAlways) {
  const auto stream = stream_of({.reader_events = 2});
  const auto reader = stream->attach({});
  stream->push(token("a"));
  stream->push(token("b"));
  stream->push(EndEvent{});
  EXPECT_EQ(described(*reader), "token(a) token(b) end(MAX_TOKENS,0)");
}

TEST(Stream, CutsOffASlowReaderAlone) {
  const auto stream = stream_of({.reader_events = 2, .keep = true});
  const auto slow = stream->attach({}), quick = stream->attach({});
  std::string text;
  for (const char* t : {"a", "b", "c", "d"}) {
    stream->push(token(t));
    text += std::get<TokenEvent>(*quick->next()).text;
  }
  EXPECT_EQ(text, "abcd");
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kNone);
  EXPECT_EQ(described(*slow), std::string("token(a) token(b) ") + kTooSlow);
}

TEST(Stream, WhatWasThereBeforeItCameMakesNoReaderSlow) {
  const auto stream = stream_of({.reader_events = 2, .keep = true});
  const auto first = stream->attach({});
  for (int i = 0; i < 10; ++i) {
    stream->push(token("a"));
    first->next();
  }
  const auto late = stream->attach({});
  stream->push(token("b"));
  stream->push(token("c"));
  all_events(*first);
  EXPECT_EQ(all_events(*late).size(), 12u);
  for (const char* t : {"d", "e", "f"}) stream->push(token(t));
  EXPECT_EQ(described(*late), std::string("token(d) token(e) ") + kTooSlow);
}

TEST(Stream, ItsLastReaderEndsIt) {
  const auto stream = stream_of();
  auto a = stream->attach({}), b = stream->attach({});
  stream->push(token("a"));
  a->leave();
  stream->push(token("b"));
  EXPECT_EQ(described(*a), std::string("token(a) ") + kHasLeft);
  a.reset();
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kNone);
  b.reset();
  EXPECT_EQ(stream->cancelled(kNow), CancelCause::kDisconnected);
}

TEST(Stream, WhoLeavesAfterTheEndStillHasTheEnd) {
  const auto stream = stream_of();
  const auto reader = stream->attach({});
  stream->push(EndEvent{});
  reader->leave();
  EXPECT_EQ(described(*reader), "end(MAX_TOKENS,0)");
}

TEST(Stream, GoesOnForItsGraceWithoutReaders) {
  const auto stream = stream_of({.keep = true, .grace = seconds(60)});
  auto reader = stream->attach({});
  const auto at = [](int s) { return kNow + seconds(s); };
  EXPECT_EQ(stream->cancelled(at(1000)), CancelCause::kNone);
  reader.reset();
  EXPECT_EQ(stream->cancelled(at(1001)), CancelCause::kNone);
  EXPECT_EQ(stream->cancelled(at(1060)), CancelCause::kNone);
  reader = stream->attach({});
  EXPECT_EQ(stream->cancelled(at(1070)), CancelCause::kNone);
  reader->leave();
  EXPECT_EQ(stream->cancelled(at(1080)), CancelCause::kNone);
  EXPECT_EQ(stream->cancelled(at(1139)), CancelCause::kNone);
  EXPECT_EQ(stream->cancelled(at(1140)), CancelCause::kDisconnected);
  EXPECT_FALSE(stream->attach({}));
}

TEST(Stream, AReaderBeginsWhereItWants) {
  const auto stream = stream_of({.keep = true});
  const auto first = stream->attach({});
  for (const char* t : {"a", "b"}) stream->push(token(t));
  all_events(*first);
  const auto all = stream->attach({}), half = stream->attach({}, 1), none = stream->attach({}, 2);
  EXPECT_EQ(described(*all), "token(a) token(b)");
  EXPECT_EQ(described(*half), "token(b)");
  EXPECT_EQ(described(*none), "");
  stream->push(EndEvent{});
  EXPECT_EQ(described(*none), "end(MAX_TOKENS,0)");
  EXPECT_EQ(described(*stream->attach({}, 3)), "");
}

// Counts by what is alive, through the shared events.
TEST(Stream, DropsWhatAllHaveReadUnlessItIsToBeKept) {
  for (const bool keep : {false, true}) {
    const auto stream = stream_of({.keep = keep});
    const auto a = stream->attach({}), b = stream->attach({});
    stream->push(token("a"));
    const std::weak_ptr<const Event> event = a->next();
    EXPECT_FALSE(event.expired());
    b->next();
    EXPECT_EQ(event.expired(), !keep);
  }
}

}  // namespace
}  // namespace llorch
