#include "engine/request.h"

#include <gtest/gtest.h>

#include <string>

namespace llorch {
namespace {

TokenEvent token(std::string text) { return {std::move(text), 0, {}, {}}; }

TEST(Stream, GivesEventsInOrder) {
  Stream stream(8);
  EXPECT_FALSE(stream.next());
  EXPECT_TRUE(stream.push(token("a")));
  EXPECT_TRUE(stream.push(token("b")));
  EXPECT_EQ(std::get<TokenEvent>(*stream.next()).text, "a");
  EXPECT_EQ(std::get<TokenEvent>(*stream.next()).text, "b");
  EXPECT_FALSE(stream.next());
}

TEST(Stream, WakesOnlyWhenTheQueueWasEmpty) {
  Stream stream(8);
  int woken = 0;
  stream.on_event([&] { ++woken; });
  stream.push(token("a"));
  stream.push(token("b"));
  EXPECT_EQ(woken, 1);
  stream.next();
  stream.push(token("c"));
  EXPECT_EQ(woken, 1);
  while (stream.next()) {
  }
  stream.push(token("d"));
  EXPECT_EQ(woken, 2);
}

TEST(Stream, CanBeReadFromTheWakeUp) {
  Stream stream(8);
  std::string text;
  stream.on_event([&] {
    while (const auto event = stream.next()) text += std::get<TokenEvent>(*event).text;
  });
  stream.push(token("a"));
  stream.push(token("b"));
  EXPECT_EQ(text, "ab");
}

TEST(Stream, RefusesWhatIsBeyondItsCapacityButNotTheEnd) {
  Stream stream(2);
  EXPECT_TRUE(stream.push(token("a")));
  EXPECT_TRUE(stream.push(token("b")));
  EXPECT_FALSE(stream.push(token("c")));
  EXPECT_TRUE(stream.push(FailedEvent{"INFERENCE_FAILED", "slow", true}));
  stream.next();
  stream.next();
  EXPECT_STREQ(std::get<FailedEvent>(*stream.next()).code, "INFERENCE_FAILED");
  EXPECT_FALSE(stream.next());
}

TEST(Stream, EndsOnce) {
  Stream stream(8);
  EXPECT_TRUE(stream.push(EndEvent{}));
  EXPECT_FALSE(stream.push(FailedEvent{"CANCELLED", "", false}));
  EXPECT_FALSE(stream.push(token("late")));
  EXPECT_TRUE(std::holds_alternative<EndEvent>(*stream.next()));
  EXPECT_FALSE(stream.next());
}

TEST(Stream, KeepsTheFirstCauseOfACancel) {
  Stream stream(8);
  EXPECT_EQ(stream.cancelled(), CancelCause::kNone);
  stream.cancel(CancelCause::kDisconnected);
  stream.cancel(CancelCause::kClient);
  EXPECT_EQ(stream.cancelled(), CancelCause::kDisconnected);
}

}  // namespace
}  // namespace llorch
