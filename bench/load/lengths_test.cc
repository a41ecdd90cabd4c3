#include "load/lengths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace llorch::bench {
namespace {

std::vector<int> draws(const char* text, int count = 20000) {
  Random random(7);
  const LengthMix mix = LengthMix::parse(text);
  std::vector<int> all;
  for (int i = 0; i < count; ++i) all.push_back(mix.draw(random));
  return all;
}

double share_of(const std::vector<int>& values, int value) {
  return static_cast<double>(std::count(values.begin(), values.end(), value)) /
         static_cast<double>(values.size());
}

TEST(LengthMix, OneLength) { EXPECT_EQ(draws("128", 3), (std::vector<int>{128, 128, 128})); }

TEST(LengthMix, UniformReachesBothEndsAndNoFurther) {
  const auto values = draws("uniform:3-6");
  EXPECT_EQ(*std::min_element(values.begin(), values.end()), 3);
  EXPECT_EQ(*std::max_element(values.begin(), values.end()), 6);
  for (int value = 3; value <= 6; ++value) EXPECT_NEAR(share_of(values, value), 0.25, 0.02);
}

TEST(LengthMix, LognormalHasItsMedianItsSpreadAndItsEnd) {
  auto values = draws("lognormal:200,0.5,1000");
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size()))];
  };
  EXPECT_NEAR(at(0.5), 200, 6);
  // One deviation of the normal distribution is its quantile 0.8413.
  EXPECT_NEAR(at(0.8413), 200 * std::exp(0.5), 12);
  EXPECT_LE(values.back(), 1000);
  const auto wide = draws("lognormal:200,9,1000");
  EXPECT_EQ(*std::min_element(wide.begin(), wide.end()), 1);
  EXPECT_EQ(*std::max_element(wide.begin(), wide.end()), 1000);
}

TEST(LengthMix, PartsComeByTheirWeights) {
  const auto values = draws("3*10+20+0.5*uniform:30-30");
  EXPECT_NEAR(share_of(values, 10), 3 / 4.5, 0.02);
  EXPECT_NEAR(share_of(values, 20), 1 / 4.5, 0.02);
  EXPECT_NEAR(share_of(values, 30), 0.5 / 4.5, 0.02);
}

TEST(LengthMix, WhatIsNoLengthIsRefused) {
  for (const char* text : {"", "0", "-1", "x", "1x", "uniform:5", "uniform:6-3", "uniform:1-2-3",
                           "lognormal:5", "lognormal:1,2,3,4", "normal:1,2", "2*", "1+", "nan"}) {
    EXPECT_THROW(LengthMix::parse(text), std::invalid_argument) << text;
  }
}

}  // namespace
}  // namespace llorch::bench
