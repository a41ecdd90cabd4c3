// Energy: of a made-up meter, and of backend fake's through the engine. Sums come from what the
// test lets the meter show.
#include "engine/energy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/test_engine.h"

namespace llorch {
namespace {

// A meter that shows what the test has drawn; an account of it; steps as rows of sequences.
struct Metered {
  using Rows = std::vector<std::pair<EnergyShare*, int32_t>>;

  std::optional<double> shown = 1000;
  EnergyAccount account{[this] { return shown; }, 8};

  void step(const Rows& rows, double moves_by) {
    account.step_begins();
    if (shown) *shown += moves_by;
    for (const auto& [share, count] : rows) account.add(*share, count);
    account.step_ended();
  }
};

TEST(EnergyAccount, SplitsAStepByRows) {
  Metered meter;
  EnergyShare a, b;
  meter.step({{&a, 1}, {&b, 3}}, 8);
  EXPECT_DOUBLE_EQ(a.joules, 2);
  EXPECT_DOUBLE_EQ(b.joules, 6);
  meter.step({{&a, 1}}, 5);
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 7);
  EXPECT_DOUBLE_EQ(meter.account.end(b).value(), 6);
}

TEST(EnergyAccount, SharesAnIncreaseOverAllStepsSinceTheLast) {
  Metered meter;
  EnergyShare a, b;
  meter.step({{&a, 4}}, 0);
  meter.step({{&a, 1}, {&b, 2}}, 0);
  EXPECT_EQ(a.joules + b.joules, 0);
  meter.step({{&b, 3}}, 100);
  EXPECT_DOUBLE_EQ(a.joules, 50);
  EXPECT_DOUBLE_EQ(b.joules, 50);
  meter.step({{&b, 1}}, 10);  // a's rows are paid
  EXPECT_DOUBLE_EQ(a.joules, 50);
  EXPECT_DOUBLE_EQ(b.joules, 60);
}

TEST(EnergyAccount, GivesNobodyWhatIsDrawnBetween) {
  Metered meter;
  EnergyShare a, b;
  *meter.shown += 70;  // before the first step
  meter.step({{&a, 2}}, 4);
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 4);
  meter.account.idle();
  *meter.shown += 500;
  meter.step({{&b, 2}}, 6);
  EXPECT_DOUBLE_EQ(meter.account.end(b).value(), 6);
}

TEST(EnergyAccount, CountsWhatIsDrawnBetweenTwoStepsOfABusyEngine) {
  Metered meter;
  EnergyShare a;
  meter.step({{&a, 1}}, 4);
  *meter.shown += 3;
  meter.step({{&a, 1}}, 4);
  EXPECT_DOUBLE_EQ(a.joules, 11);
}

TEST(EnergyAccount, GuessesForWhomeverEndsFirstAndTakesItFromTheNextIncrease) {
  Metered meter;
  EnergyShare a, b;
  meter.step({{&a, 1}, {&b, 1}}, 0);
  meter.step({{&a, 1}, {&b, 1}}, 40);  // 10 a row
  meter.step({{&a, 1}, {&b, 1}}, 0);
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 20 + 10);
  meter.step({{&b, 1}}, 36);  // 12 a row in truth
  EXPECT_DOUBLE_EQ(b.joules, 20 + 26);
  EXPECT_DOUBLE_EQ(a.joules + b.joules, 40 + 36);
  // The price is that of all rows, not of what was left of the increase: 36 for 3.
  meter.step({{&b, 1}}, 0);
  EXPECT_DOUBLE_EQ(meter.account.end(b).value(), 46 + 12);
}

// The rows of a long prompt are far cheaper than those of a decoding step.
TEST(EnergyAccount, GuessesNoMoreThanWhatTheMeterMovedBy) {
  Metered meter;
  EnergyShare a, b, c, d;
  meter.step({{&a, 10}}, 30);  // 3 a row
  meter.step({{&a, 1}, {&b, 500}, {&c, 5}}, 0);
  EXPECT_DOUBLE_EQ(meter.account.end(c).value(), 15);
  EXPECT_DOUBLE_EQ(meter.account.end(b).value(), 15);  // 30 in all
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 30);
  meter.step({{&d, 1}}, 10);
  EXPECT_DOUBLE_EQ(d.joules, 0);
  meter.step({{&d, 1}}, 25);
  EXPECT_DOUBLE_EQ(d.joules, 5);
}

TEST(EnergyAccount, PaysGuessesFromWhatIsShownAfterTheLastStep) {
  Metered meter;
  EnergyShare a, b, c;
  meter.step({{&a, 1}}, 8);
  meter.step({{&a, 1}}, 0);
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 16);
  meter.account.idle();
  *meter.shown += 5;
  meter.step({{&b, 1}}, 7);  // 3 are owed still
  meter.step({{&b, 1}}, 0);
  EXPECT_DOUBLE_EQ(meter.account.end(b).value(), 4 + 7);
  meter.account.idle();
  *meter.shown += 100;
  meter.step({{&c, 2}}, 7);
  EXPECT_DOUBLE_EQ(c.joules, 7);
  meter.step({{&c, 1}}, 0);  // b's rows are no part of the price
  EXPECT_DOUBLE_EQ(meter.account.end(c).value(), 7 + 3.5);
}

TEST(EnergyAccount, KnowsNoPriceBeforeTheMeterHasMoved) {
  Metered meter;
  EnergyShare a, b;
  meter.step({{&a, 3}, {&b, 1}}, 0);
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 0);
  meter.step({{&b, 1}}, 10);
  EXPECT_DOUBLE_EQ(b.joules, 10);
}

TEST(EnergyAccount, WithoutAMeterThereIsNoFigure) {
  int asked = 0;
  EnergyAccount account(
      [&]() -> std::optional<double> {
        ++asked;
        return std::nullopt;
      },
      8);
  EnergyShare share;
  account.step_begins();
  account.add(share, 5);
  account.step_ended();
  EXPECT_EQ(account.end(share), std::nullopt);
  EXPECT_EQ(asked, 1);
}

TEST(EnergyAccount, OutlivesAMeterThatFailsForAWhileOrBeginsAnew) {
  Metered meter;
  EnergyShare a;
  meter.step({{&a, 1}}, 4);
  const double before = *std::exchange(meter.shown, std::nullopt);
  meter.step({{&a, 1}}, 0);
  EXPECT_DOUBLE_EQ(a.joules, 4);
  meter.shown = before + 6;
  meter.step({{&a, 1}}, 0);
  EXPECT_DOUBLE_EQ(a.joules, 10);
  meter.shown = 0;
  meter.step({{&a, 1}}, 0);
  EXPECT_DOUBLE_EQ(a.joules, 10);
  meter.step({{&a, 1}}, 3);
  EXPECT_DOUBLE_EQ(meter.account.end(a).value(), 13);
}

// A device that is used at random, with rests, behind a meter that shows whole ticks.
struct Simulation {
  explicit Simulation(uint32_t seed) : random(seed) {}
  int below(int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); }

  void draw(double joules) {
    drawn += joules;
    shown = std::floor(drawn / tick) * tick;
  }
  double given() const {
    double sum = ended;
    for (const auto& share : open) sum += share->joules;
    return sum;
  }
  void step() {
    if (open.empty() || (open.size() < 6 && below(8) == 0)) {
      open.push_back(std::make_unique<EnergyShare>());
    }
    account.step_begins();
    const double before = shown;
    draw(1 + below(30));
    biggest = std::max(biggest, shown - before);
    for (const auto& share : open) {
      if (below(4) > 0) account.add(*share, 1 + (below(6) == 0 ? below(200) : 0));
    }
    account.add(*open[0], 1);
    account.step_ended();
    while (!open.empty() && below(6) == 0) end_one();
    if (open.empty()) account.idle();
  }
  void end_one() {
    const auto at = open.begin() + below(static_cast<int>(open.size()));
    ended += account.end(**at).value();
    open.erase(at);
  }

  std::mt19937 random;
  double drawn = 0, shown = 0;
  double biggest = 0;  // that it moved by in a step
  const double tick = below(4) == 0 ? 1 : 2 + below(200);
  std::vector<std::unique_ptr<EnergyShare>> open;
  double ended = 0;
  EnergyAccount account{[this] { return std::optional<double>(shown); }, 8};
};

// All that the meter shows is somebody's, at once or when it shows what had to be guessed.
TEST(EnergyAccount, SumsAreWhatTheMeterHasMovedBy) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    Simulation s(seed);
    for (int i = 0; i < 300; ++i) {
      s.step();
      ASSERT_GE(s.given(), s.shown - 1e-6) << "seed " << seed;
      ASSERT_LE(s.given(), s.shown + s.biggest + 1e-6) << "seed " << seed;
    }
    EnergyShare last;
    const double more = s.biggest + s.tick;
    s.account.step_begins();
    s.draw(more);
    s.account.add(last, 1);
    s.account.step_ended();
    EXPECT_NEAR(s.given() + last.joules, s.shown, 1e-6) << "seed " << seed;
  }
}

// What rests draw is nobody's, but for what the meter shows of it only in the step after, or as if
// it were what was guessed before.
TEST(EnergyAccount, SumsLeaveRestsOut) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    Simulation s(seed);
    double rests = 0;
    int count = 0;
    for (int i = 0; i < 300; ++i) {
      s.step();
      ASSERT_LE(s.given(), s.shown + s.biggest + 1e-6) << "seed " << seed;
      if (!s.open.empty()) continue;
      const double joules = s.below(10'000);
      s.draw(joules);
      rests += joules;
      ++count;
    }
    EXPECT_GT(count, 3);
    EXPECT_LE(s.given(), s.drawn - rests + (count + 1) * (s.tick + s.biggest)) << "seed " << seed;
    // Exact with a meter that moves in every step.
    if (s.tick == 1) {
      EXPECT_NEAR(s.given(), s.drawn - rests, 1e-6) << "seed " << seed;
    }
  }
}

class ScopedMeter {
 public:
  ScopedMeter(const char* step_joules, const char* moves_by, const char* watts = "0") {
    setenv("LLORCH_FAKE_STEP_JOULES", step_joules, 1);
    setenv("LLORCH_FAKE_METER_JOULES", moves_by, 1);
    setenv("LLORCH_FAKE_WATTS", watts, 1);
  }
  ~ScopedMeter() {
    for (const char* key :
         {"LLORCH_FAKE_STEP_JOULES", "LLORCH_FAKE_METER_JOULES", "LLORCH_FAKE_WATTS"}) {
      unsetenv(key);
    }
  }
};

Request endless(std::string job_id, std::string_view prompt, int32_t max_tokens) {
  Request request = test_request(std::move(job_id), prompt, max_tokens);
  request.ignore_eos = true;
  return request;
}

std::optional<double> energy_of(Reader& reader) {
  return std::get<EndEvent>(all_events(reader).back()).energy_j;
}

TEST(EngineEnergy, WithoutAMeterThereIsNoFigure) {
  TestEngine test;
  const auto reader = test.submit(test_request("a", "abc", 3));
  test.run_until_idle();
  EXPECT_EQ(energy_of(*reader), std::nullopt);
  EXPECT_EQ(test.engine.energy_j(), std::nullopt);
}

TEST(EngineEnergy, AStepIsSplitByItsRows) {
  const ScopedMeter meter("8", "0");
  TestEngine test({.speculate = false});
  const auto two = test.submit(test_request("two", "ab", 1));
  const auto six = test.submit(test_request("six", "klmnop", 3));
  test.run_until_idle();
  EXPECT_DOUBLE_EQ(energy_of(*two).value(), 2);
  EXPECT_DOUBLE_EQ(energy_of(*six).value(), 6 + 8 + 8);
  EXPECT_DOUBLE_EQ(test.engine.energy_j().value(), 24);
}

TEST(EngineEnergy, DraftsAreRowsToo) {
  const ScopedMeter meter("8", "0");
  TestEngine test;
  const Counter& drafted = test.engine.metrics().draft_tokens;
  // One goes through the alphabet again, the other never has a token twice.
  const auto again = test.submit(endless("again", "abcdefghijklmnopqrstuvwxyzabc", 20));
  const auto once = test.submit(endless("once", "k", 30));
  double of_again = 0, of_once = 0, rows = 29;
  std::vector<Event> events;
  while (events.empty() || !is_terminal(events.back())) {
    const uint64_t before = drafted.value();
    ASSERT_TRUE(test.engine.step());
    rows += static_cast<double>(drafted.value() - before);
    of_again += 8 * rows / (rows + 1);
    of_once += 8 / (rows + 1);
    rows = 1;
    events = all_events(*again);
  }
  EXPECT_GT(drafted.value(), 0u);
  EXPECT_NEAR(std::get<EndEvent>(events.back()).energy_j.value(), of_again, 1e-9);
  const uint64_t steps = test.engine.snapshot().steps;
  test.run_until_idle();
  of_once += 8 * static_cast<double>(test.engine.snapshot().steps - steps);
  EXPECT_NEAR(energy_of(*once).value(), of_once, 1e-9);
}

TEST(EngineEnergy, WhatACancelledOneHasDrawnIsNotTheOthers) {
  const ScopedMeter meter("10", "40");
  TestEngine test({.steps_in_flight = 1, .speculate = false});
  const auto gone = test.submit(endless("gone", "a", 100));
  const auto stays = test.submit(endless("stays", "k", 8));
  for (int i = 0; i < 6; ++i) test.engine.step();  // after 4 of them each has 20
  EXPECT_TRUE(test.engine.cancel("gone"));         // with 2 of 4 rows that the meter does not show
  test.run_until_idle();                           // two more steps; it moves by 40
  EXPECT_TRUE(described(*gone).ends_with("failed(CANCELLED)"));
  EXPECT_DOUBLE_EQ(energy_of(*stays).value(), 20 + 40 - 10);
}

TEST(EngineEnergy, OnesThatEndTogetherHaveEqualGuesses) {
  const ScopedMeter meter("10", "40");
  TestEngine test({.speculate = false});
  const auto a = test.submit(endless("a", "a", 6)), b = test.submit(endless("b", "k", 6));
  test.run_until_idle();
  EXPECT_DOUBLE_EQ(energy_of(*a).value(), 20 + 10);
  EXPECT_DOUBLE_EQ(energy_of(*b).value(), 20 + 10);
  EXPECT_DOUBLE_EQ(test.engine.energy_j().value(), 40);
}

TEST(EngineEnergy, ARestIsNobodys) {
  const ScopedMeter meter("0", "0", "1000000");
  TestEngine test;
  const auto shown = [&] { return test.engine.energy_j().value(); };
  const auto rest = [&] {
    const double before = shown();
    EXPECT_FALSE(test.engine.step());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return shown() - before;
  };
  double sum = 0, rests = rest();
  for (int i = 0; i < 3; ++i) {
    const auto reader = test.submit(endless("a", "abc", 4));
    test.run_until_idle();
    sum += energy_of(*reader).value();
    rests += rest();
  }
  EXPECT_GT(sum, 0);
  EXPECT_GE(rests, 80'000);
  EXPECT_LE(sum, shown() - rests);
}

}  // namespace
}  // namespace llorch
