#include "load/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace llorch::bench {
namespace {

constexpr double kPanelWidth = 460, kPanelHeight = 270, kTop = 40;
constexpr double kLeft = 62, kRight = 16, kAbove = 46, kBelow = 44;  // around the plot of a panel
constexpr int kColumns = 2;
// Told apart also by those who see no red or green (Okabe and Ito).
constexpr std::array kColors = {"#0072B2", "#D55E00", "#009E73", "#CC79A7"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string label(double x, double y, const char* anchor, const std::string& text,
                  const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     anchor, more, escaped(text));
}

// 1500000 → 1.5M
std::string short_number(double value) {
  constexpr std::array kUnits = {std::pair{1e9, "G"}, std::pair{1e6, "M"}, std::pair{1e3, "k"}};
  for (const auto& [size, letter] : kUnits) {
    if (std::abs(value) >= size) return fmt::format("{:.4g}{}", value / size, letter);
  }
  return fmt::format("{:.4g}", std::abs(value) < 1e-12 ? 0 : value);
}

// A plot within its frame: places of values, in pixels.
class Frame {
 public:
  Frame(const Panel& panel, double left, double top) : left_(left + kLeft), top_(top + kAbove) {
    constexpr double kNone = std::numeric_limits<double>::infinity();
    double x0 = panel.log_x ? kNone : 0, x1 = -kNone, y0 = 0, y1 = -kNone;
    for (const Line& line : panel.lines) {
      for (const auto& [x, y] : line.points) {
        if (!std::isfinite(x) || !std::isfinite(y) || (panel.log_x && x <= 0)) continue;
        x0 = std::min(x0, x), x1 = std::max(x1, x);
        y0 = std::min(y0, y), y1 = std::max(y1, y);
      }
    }
    x_ = make_axis(x0, x1, panel.log_x, false);
    y_ = make_axis(y0, y1, false, true);
  }

  bool has(double x, double y) const {
    return std::isfinite(x) && std::isfinite(y) && (!x_.log || x > 0);
  }
  double x(double value) const { return left_ + x_.place(value) * width(); }
  double y(double value) const { return top_ + (1 - y_.place(value)) * height(); }
  const Axis& x_axis() const { return x_; }
  const Axis& y_axis() const { return y_; }
  double left() const { return left_; }
  double right() const { return left_ + width(); }
  double top() const { return top_; }
  double bottom() const { return top_ + height(); }

 private:
  static constexpr double width() { return kPanelWidth - kLeft - kRight; }
  static constexpr double height() { return kPanelHeight - kAbove - kBelow; }

  double left_, top_;
  Axis x_, y_;
};

std::string grid(const Frame& frame, const Panel& panel) {
  std::string out;
  const auto line = [&](double x0, double y0, double x1, double y1) {
    out +=
        fmt::format("<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"#ddd\"/>\n", x0, y0, x1, y1);
  };
  for (const double tick : frame.x_axis().ticks) {
    line(frame.x(tick), frame.top(), frame.x(tick), frame.bottom());
    out += label(frame.x(tick), frame.bottom() + 14, "middle", short_number(tick));
  }
  for (const double tick : frame.y_axis().ticks) {
    line(frame.left(), frame.y(tick), frame.right(), frame.y(tick));
    out += label(frame.left() - 6, frame.y(tick) + 4, "end", short_number(tick));
  }
  out += label((frame.left() + frame.right()) / 2, frame.bottom() + 30, "middle", panel.x_label);
  out += label(frame.left() - 46, frame.top() - 26, "start", panel.title, " font-weight=\"bold\"");
  out += label(frame.left() - 46, frame.top() - 10, "start", panel.y_label, " fill=\"#555\"");
  return out;
}

std::string drawn(const Frame& frame, const Line& line, const char* color) {
  std::string path;
  double last_y = 0;
  for (const auto& [x, y] : line.points) {
    if (!frame.has(x, y)) continue;
    if (!path.empty() && line.steps) path += fmt::format("L{:.1f} {:.1f}", frame.x(x), last_y);
    last_y = frame.y(y);
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.x(x), last_y);
  }
  if (path.empty()) return "";
  return fmt::format(
      "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" "
      "stroke-linejoin=\"round\"/>\n",
      path, color);
}

std::string draw_panel(const Panel& panel, double left, double top) {
  const Frame frame(panel, left, top);
  std::string out = grid(frame, panel);
  double legend = frame.right();
  for (size_t i = panel.lines.size(); i-- > 0;) {
    const char* color = kColors[i % kColors.size()];
    out += drawn(frame, panel.lines[i], color);
    if (panel.lines[i].label.empty()) continue;
    out += label(legend, frame.top() - 10, "end", panel.lines[i].label,
                 fmt::format(" fill=\"{}\" font-weight=\"bold\"", color).c_str());
    legend -= 7.0 * static_cast<double>(panel.lines[i].label.size()) + 14;
  }
  return out;
}

Axis linear_axis(double least, double most, bool round_ends) {
  Axis axis;
  if (!(most > least)) {  // one value, or none at all
    if (!std::isfinite(least)) least = 0;
    most = least + std::max(std::abs(least), 1.0);
  }
  const double rough = (most - least) / 5, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  }
  constexpr double kSlack = 1e-9;  // for steps like 0.1, which are no binary fractions
  if (round_ends) {
    least = std::floor(least / step + kSlack) * step, most = std::ceil(most / step - kSlack) * step;
  }
  for (double i = std::ceil(least / step - kSlack); i <= most / step + kSlack; ++i) {
    axis.ticks.push_back(i * step);
  }
  axis.low = least, axis.high = most;
  return axis;
}

Axis log_axis(double least, double most) {
  Axis axis;
  axis.log = true;
  if (!(least > 0) || !std::isfinite(least)) least = most = 1;
  const double first = std::floor(std::log10(least) + 1e-9);
  const double last = std::max(std::ceil(std::log10(most) - 1e-9), first + 1);
  for (double i = first; i <= last; ++i) axis.ticks.push_back(std::pow(10, i));
  axis.low = axis.ticks.front(), axis.high = axis.ticks.back();
  return axis;
}

}  // namespace

double Axis::place(double value) const {
  if (!log) return (value - low) / (high - low);
  return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
}

Axis make_axis(double least, double most, bool log, bool round_ends) {
  return log ? log_axis(least, most) : linear_axis(least, most, round_ends);
}

std::string draw_svg(const std::string& title, const std::vector<Panel>& panels) {
  const size_t rows = (panels.size() + kColumns - 1) / kColumns;
  const double width = kColumns * kPanelWidth,
               height = kTop + static_cast<double>(rows) * kPanelHeight;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"sans-serif\" font-size=\"11\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  out += label(kLeft - 46, 26, "start", title, " font-size=\"15\" font-weight=\"bold\"");
  for (size_t i = 0; i < panels.size(); ++i) {
    out += draw_panel(panels[i], static_cast<double>(i % kColumns) * kPanelWidth,
                      kTop + static_cast<double>(i / kColumns) * kPanelHeight);
  }
  return out + "</svg>\n";
}

}  // namespace llorch::bench
