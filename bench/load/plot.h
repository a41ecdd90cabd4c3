// Line plots as SVG, without a library.
#pragma once

#include <string>
#include <vector>

#include "load/statistics.h"

namespace llorch::bench {

struct Line {
  std::string label;
  Points points;
  bool steps = false;  // holds its value until the next point
};

struct Panel {
  std::string title, x_label, y_label;
  std::vector<Line> lines;
  bool log_x = false;  // what is not positive has no place on it
};

// An axis that has room for [least, most]; its ticks are round numbers.
struct Axis {
  double low = 0, high = 1;
  bool log = false;
  std::vector<double> ticks;

  double place(double value) const;  // 0 at low, 1 at high
};
// `round_ends`: the ends are ticks too; always so on a logarithmic axis.
Axis make_axis(double least, double most, bool log, bool round_ends);

// One picture of panels, two beside each other.
std::string draw_svg(const std::string& title, const std::vector<Panel>& panels);

}  // namespace llorch::bench
