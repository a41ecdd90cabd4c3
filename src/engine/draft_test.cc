#include "engine/draft.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace llorch {
namespace {

using Ints = std::vector<int32_t>;

constexpr int32_t kLimit = 4096;

Ints ints(std::string_view text) { return {text.begin(), text.end()}; }

// The next `count` guesses as a text; shorter if there are no more.
std::string guesses(const Drafter& drafter, Ints tokens, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const auto guess = drafter.next(tokens);
    if (!guess) break;
    tokens.push_back(guess->token);
    text += static_cast<char>(guess->token);
  }
  return text;
}

std::string guesses(std::string_view known, int count) {
  Drafter drafter(kLimit);
  drafter.follow(ints(known));
  return guesses(drafter, ints(known), count);
}

TEST(Drafter, GuessesWhatFollowedTheSameTokensTheLastTime) {
  EXPECT_EQ(guesses("one two, one t", 5), "wo, o");
  EXPECT_EQ(guesses("abcX abcY abc", 1), "Y");
  EXPECT_EQ(guesses("abcdef", 1), "");
  EXPECT_EQ(guesses("a", 1), "");
  EXPECT_EQ(guesses("", 1), "");
}

TEST(Drafter, GoesOnIntoItsOwnGuesses) {
  EXPECT_EQ(guesses("xyxy", 7), "xyxyxyx");
  EXPECT_EQ(guesses("abcabc", 7), "abcabca");
  EXPECT_EQ(guesses("aa", 4), "aaaa");
}

TEST(Drafter, TheLongerLikenessBeatsTheNewerOne) {
  EXPECT_EQ(guesses("the cab; a rat, the ca", 1), "b");
  EXPECT_EQ(guesses("abcP zcQ abc", 1), "P");
}

// As if all had come in one call; what was guessed in between and was wrong leaves no trace.
TEST(Drafter, FollowsTokenByTokenTheSame) {
  std::mt19937 random(1);
  Ints tokens;
  Drafter by_one(kLimit);
  for (int n = 0; n < 400; ++n) {
    tokens.push_back(static_cast<int32_t>('a' + random() % 3));
    guesses(by_one, tokens, 0);
    by_one.follow(tokens);
    guesses(by_one, tokens, 5);
    Drafter at_once(kLimit);
    at_once.follow(tokens);
    ASSERT_EQ(guesses(by_one, tokens, 8), guesses(at_once, tokens, 8)) << n;
  }
}

// A guess is what did follow an equal token, whatever else has the same hash.
TEST(Drafter, NeverGuessesWhatDidNotFollow) {
  std::mt19937 random(2);
  Ints tokens;
  Drafter drafter(1500);
  int found = 0;
  for (int n = 0; n < 1500; ++n) {
    tokens.push_back(static_cast<int32_t>(random() % 700));
    drafter.follow(tokens);
    const auto guess = drafter.next(tokens);
    if (!guess) continue;
    ++found;
    bool followed = false;
    for (int i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(i);
      followed |= tokens[at] == tokens.back() && tokens[at + 1] == guess->token;
    }
    ASSERT_TRUE(followed) << n;
  }
  EXPECT_GT(found, 300);
}

TEST(Drafter, LearnsHowOftenItIsRight) {
  const auto chance = [](const Ints& tokens) {
    Drafter drafter(kLimit);
    drafter.follow(tokens);
    const auto guess = drafter.next(tokens);
    return guess ? guess->chance : 0;
  };
  const double first = chance(ints("ab a"));
  EXPECT_GT(first, 0);
  EXPECT_LT(first, 0.5);
  EXPECT_EQ(chance(ints("ab ab a")), chance(ints("12 12 1")));
  Ints repeats, mixed;
  std::mt19937 random(3);
  for (int n = 0; n < 500; ++n) {
    repeats.push_back(n % 7);
    mixed.push_back(static_cast<int32_t>(random() % 50));
  }
  EXPECT_GT(chance(repeats), 0.95);
  EXPECT_LT(chance(mixed), 0.1);
  // From the same point on, the more tokens are alike the surer.
  Drafter drafter(kLimit);
  const Ints known = ints("abcdefghijklm abc");
  drafter.follow(known);
  Ints on = known;
  double before = 0;
  for (int i = 0; i < 8; ++i) {
    const auto guess = drafter.next(on);
    EXPECT_GE(guess->chance, before);
    before = guess->chance;
    on.push_back(guess->token);
  }
  EXPECT_GT(before, drafter.next(known)->chance);
}

TEST(Drafter, BearsALimitOfOne) {
  Drafter drafter(1);
  drafter.follow(Ints{5});
  EXPECT_FALSE(drafter.next(Ints{5}));
}

}  // namespace
}  // namespace llorch
