#include "load/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "load/words.h"

namespace llorch::bench {
namespace {

size_t characters(const std::string& utf8) {
  return static_cast<size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

TEST(Arrivals, PoissonHasItsRateAndTheSpreadOfNoMemory) {
  Arrivals arrivals(ArrivalKind::kPoisson, 50, 3);
  constexpr int kCount = 20000;
  double last = 0, sum = 0, squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double at = arrivals.next(), gap = at - last;
    ASSERT_GE(gap, 0);
    sum += gap, squares += gap * gap;
    last = at;
  }
  const double mean = sum / kCount, variance = squares / kCount - mean * mean;
  EXPECT_NEAR(mean, 1.0 / 50, 0.0005);
  EXPECT_NEAR(variance / (mean * mean), 1, 0.05);  // exponential: deviation equals mean
}

TEST(Arrivals, FixedAreEquallyFarApartAndDoNotDrift) {
  Arrivals arrivals(ArrivalKind::kFixed, 10, 3);
  for (int i = 0; i < 1000; ++i) EXPECT_DOUBLE_EQ(arrivals.next(), i / 10.0);
}

TEST(Arrivals, ABurstIsAllAtOnce) {
  Arrivals arrivals(ArrivalKind::kBurst, 10, 3);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(arrivals.next(), 0);
}

TEST(Workload, TheSameSeedAsksTheSameInAnyOrder) {
  WorkloadOptions options;
  options.prompt_tokens = LengthMix::parse("uniform:1-100");
  options.turns = LengthMix::parse("uniform:1-4");
  const Workload one(options), other(options);
  const Conversation last = one.conversation(9), first = one.conversation(0);
  EXPECT_EQ(other.conversation(0).front().text, first.front().text);
  EXPECT_EQ(other.conversation(9).back().text, last.back().text);
  EXPECT_NE(first.front().text, last.front().text);
  options.seed = 2;
  EXPECT_NE(Workload(options).conversation(0).front().text, first.front().text);
}

TEST(Workload, LengthsAreTokensOfARandomModel) {
  WorkloadOptions options;
  options.prompt_tokens = LengthMix::parse("40");
  options.follow_up_tokens = LengthMix::parse("7");
  options.output_tokens = LengthMix::parse("5");
  options.turns = LengthMix::parse("3");
  options.prefix_share = 1;
  options.prefix_tokens = 100;
  const Conversation turns = Workload(options).conversation(1);
  ASSERT_EQ(turns.size(), 3U);
  EXPECT_EQ(characters(turns[0].text), 140U);
  EXPECT_EQ(characters(turns[1].text), 7U);
  EXPECT_EQ(turns[2].output_tokens, 5);
}

TEST(Workload, PrefixesAreSharedWithinTheirGroup) {
  WorkloadOptions options;
  options.prefix_share = 0.5;
  options.prefix_tokens = 20;
  options.prefix_groups = 3;
  options.prompt_tokens = LengthMix::parse("1");
  const Workload workload(options);
  std::map<std::string, int> prefixes;
  int without = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    const std::string text = workload.conversation(i).front().text;
    if (characters(text) == 1) {
      ++without;
    } else {
      ++prefixes[text.substr(0, 20 * 3)];  // of these words, all have three bytes
    }
  }
  EXPECT_NEAR(without, 1500, 100);
  ASSERT_EQ(prefixes.size(), 3U);
  for (const auto& [text, count] : prefixes) EXPECT_NEAR(count, 500, 80);
}

TEST(Workload, SomeLeaveAndSomeCancelBeforeTheEnd) {
  WorkloadOptions options;
  options.disconnect_share = 0.1;
  options.cancel_share = 0.2;
  options.output_tokens = LengthMix::parse("10");
  const Workload workload(options);
  int disconnect = 0, cancel = 0, at_once = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    const Turn turn = workload.conversation(i).front();
    disconnect += turn.leave == Leave::kDisconnect;
    cancel += turn.leave == Leave::kCancel;
    at_once += turn.leave_after == 0;
    EXPECT_LT(turn.leave_after, turn.output_tokens);
  }
  EXPECT_NEAR(disconnect, 300, 60);
  EXPECT_NEAR(cancel, 600, 80);
  EXPECT_NEAR(at_once, 3000 * (0.25 + 0.75 * 0.1), 120);
}

TEST(Words, AreAllDifferentAndOneCharacterEach) {
  std::set<std::string> all;
  for (int id = 0; id < kWords; ++id) {
    const std::string text = word(id);
    ASSERT_EQ(characters(text), 1U) << id;
    all.insert(text);
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(kWords));
  EXPECT_EQ(word(0), "\u4E00");
  EXPECT_EQ(word(20'992), "\uAC00");
  EXPECT_EQ(word(32'164), "\U000F0000");
  EXPECT_EQ(word(kWords - 1), "\U0010FFFD");
}

}  // namespace
}  // namespace llorch::bench
