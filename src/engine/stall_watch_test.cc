#include "engine/stall_watch.h"

#include <gtest/gtest.h>

namespace llorch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Fixture {
  StallWatch::TimePoint now{seconds(1000)};
  StallWatch watch{[this] { return now; }, seconds(60)};
};

TEST(StallWatch, IdleIsNeverStalled) {
  Fixture f;
  f.now += seconds(1000);
  EXPECT_FALSE(f.watch.stalled());
  f.watch.work_begins();
  f.watch.work_ends();
  f.now += seconds(1000);
  EXPECT_FALSE(f.watch.stalled());
}

TEST(StallWatch, CountsFromTheBeginningOfWork) {
  Fixture f;
  f.now += seconds(1000);
  f.watch.work_begins();
  f.now += seconds(60);
  EXPECT_FALSE(f.watch.stalled());
  f.now += milliseconds(1);
  EXPECT_TRUE(f.watch.stalled());
}

TEST(StallWatch, CountsFromTheLastStep) {
  Fixture f;
  f.watch.work_begins();
  for (int i = 0; i < 100; ++i) {
    const auto began = f.now;
    f.now += seconds(1);
    f.watch.step_ended(began);
    EXPECT_FALSE(f.watch.stalled());
  }
  f.now += seconds(60);
  EXPECT_FALSE(f.watch.stalled());
  f.now += milliseconds(1);
  EXPECT_TRUE(f.watch.stalled());
}

TEST(StallWatch, WaitsTwentyTimesTheLongestStep) {
  Fixture f;
  f.watch.work_begins();
  const auto began = f.now;
  f.now += seconds(10);
  f.watch.step_ended(began);
  f.watch.step_ended(f.now);
  f.now += seconds(200);
  EXPECT_FALSE(f.watch.stalled());
  f.now += milliseconds(1);
  EXPECT_TRUE(f.watch.stalled());
  f.watch.step_ended(f.now);
  EXPECT_FALSE(f.watch.stalled());
}

TEST(StallWatch, StaysStalledOnceGivenUp) {
  Fixture f;
  f.watch.work_begins();
  const auto began = f.now;
  f.now += seconds(61);
  EXPECT_TRUE(f.watch.stalled());
  f.watch.give_up();
  f.watch.step_ended(began);
  f.watch.work_ends();
  EXPECT_TRUE(f.watch.stalled());
}

TEST(StallWatch, ForgetsStepsOfTheWarmUp) {
  Fixture f;
  f.watch.work_begins();
  const auto began = f.now;
  f.now += seconds(10);
  f.watch.step_ended(began);
  f.watch.forget_steps();
  f.now += seconds(61);
  EXPECT_TRUE(f.watch.stalled());
}

}  // namespace
}  // namespace llorch
