#include "load/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

namespace llorch::bench {
namespace {

TEST(Axis, HasRoomForAllAndRoundTicks) {
  for (const auto& [least, most] :
       Points{{0, 1}, {0, 3.03}, {0, 0.0007}, {-5, 17}, {990, 1010}, {0, 1e9}, {0.1, 0.3}}) {
    for (const bool round_ends : {false, true}) {
      const Axis axis = make_axis(least, most, false, round_ends);
      EXPECT_LE(axis.low, least + 1e-9 * most);
      EXPECT_GE(axis.high, most - 1e-9 * most);
      EXPECT_GE(axis.ticks.size(), 2U);
      EXPECT_LE(axis.ticks.size(), 8U);
      const double step = axis.ticks[1] - axis.ticks[0];
      const double digit = step / std::pow(10, std::floor(std::log10(step) + 1e-9));
      EXPECT_TRUE(std::abs(digit - 1) < 1e-6 || std::abs(digit - 2) < 1e-6 ||
                  std::abs(digit - 5) < 1e-6)
          << step;
      for (const double tick : axis.ticks) {
        EXPECT_GE(axis.place(tick), -1e-6);
        EXPECT_LE(axis.place(tick), 1 + 1e-6);
      }
    }
  }
}

TEST(Axis, LogarithmicOnesAreWholeDecades) {
  const Axis axis = make_axis(0.3, 450, true, false);
  EXPECT_DOUBLE_EQ(axis.low, 0.1);
  EXPECT_DOUBLE_EQ(axis.high, 1000);
  EXPECT_EQ(axis.ticks.size(), 5U);
  EXPECT_NEAR(axis.place(10), 0.5, 1e-9);
  EXPECT_DOUBLE_EQ(make_axis(1, 1, true, false).high, 10);  // one value still has an axis
}

TEST(Axis, OneValueOrNoneHasAnAxisToo) {
  const double none = std::numeric_limits<double>::infinity();
  for (const Axis& axis : {make_axis(5, 5, false, true), make_axis(none, -none, false, true),
                           make_axis(0, 0, false, false), make_axis(none, -none, true, true)}) {
    EXPECT_TRUE(std::isfinite(axis.low) && std::isfinite(axis.high));
    EXPECT_LT(axis.low, axis.high);
    EXPECT_FALSE(axis.ticks.empty());
  }
}

// Every point of every path of the picture.
Points drawn_points(const std::string& svg) {
  Points all;
  const std::regex point("[ML](-?[0-9.]+) (-?[0-9.]+)");
  for (std::sregex_iterator it(svg.begin(), svg.end(), point), end; it != end; ++it) {
    all.emplace_back(std::stod((*it)[1]), std::stod((*it)[2]));
  }
  return all;
}

TEST(Svg, AllPointsAreWithinThePicture) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Panel linear{
      "a", "x", "y", {{"one", {{0, 1}, {nan, 2}, {5, nan}, {7.7, 1234.5}}}, {"two", {}}}};
  const Panel log{"b", "x", "y", {{"", {{0, 0.5}, {0.003, 0.7}, {20000, 1}}, true}}, true};
  const std::string svg = draw_svg("t", {linear, log, linear});
  const Points points = drawn_points(svg);
  EXPECT_GT(points.size(), 6U);
  for (const auto& [x, y] : points) {
    EXPECT_TRUE(x >= 0 && x <= 920 && y >= 0 && y <= 580) << x << " " << y;
  }
  EXPECT_NE(svg.find("viewBox=\"0 0 920 580\""), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(Svg, LinesKeepTheirOrderAndStepsAreLevel) {
  const auto path_of = [](bool steps) {
    const std::string svg = draw_svg("", {{"", "", "", {{"", {{0, 0}, {1, 1}}, steps}}}});
    const size_t begin = svg.find("<path d=\"M", svg.rfind("#ddd"));
    return drawn_points(svg.substr(begin, svg.find("fill=\"none\"", begin) - begin));
  };
  const Points line = path_of(false), steps = path_of(true);
  ASSERT_EQ(line.size(), 2U);
  EXPECT_LT(line[0].first, line[1].first);
  EXPECT_GT(line[0].second, line[1].second);  // up is less in SVG
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[1], (std::pair{line[1].first, line[0].second}));
}

TEST(Svg, TextIsEscaped) {
  const std::string svg = draw_svg("a < b & c", {});
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
}

}  // namespace
}  // namespace llorch::bench
