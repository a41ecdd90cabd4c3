#include "tokenizer/json_number.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>

namespace llorch::tok {
namespace {

constexpr int64_t kMaxPower = 308;

// 10^0 ... 10^308, each the nearest double.
const std::array<double, kMaxPower + 1>& powers() {
  static const std::array<double, kMaxPower + 1> all = [] {
    std::array<double, kMaxPower + 1> made{};
    for (size_t i = 0; i < made.size(); ++i) {
      made[i] = std::strtod(("1e" + std::to_string(i)).c_str(), nullptr);
    }
    return made;
  }();
  return all;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// What the digits of a number come to: significand * 10^exponent. Digits that no longer fit the
// significand are dropped, before the point they still count.
struct Decimal {
  uint64_t significand = 0;
  int64_t exponent = 0;
  bool full = false;

  void add(char c, bool after_point) {
    const auto digit = static_cast<uint64_t>(c - '0');
    constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
    full = full || significand > (kMost - digit) / 10;
    if (full) {
      exponent += after_point ? 0 : 1;
    } else {
      significand = significand * 10 + digit;
      exponent -= after_point ? 1 : 0;
    }
  }

  double value() const {
    auto out = static_cast<double>(significand);
    int64_t rest = exponent;
    for (; rest < -kMaxPower && out != 0; rest += kMaxPower) out /= powers()[kMaxPower];
    if (out == 0) return 0;
    if (rest < 0) return out / powers()[static_cast<size_t>(-rest)];
    return out * powers()[static_cast<size_t>(std::min(rest, kMaxPower))];
  }
};

}  // namespace

double library_double(std::string_view number) {
  size_t at = 0;
  const auto at_digit = [&] { return at < number.size() && is_digit(number[at]); };
  const bool negative = !number.empty() && number[0] == '-';
  if (negative) ++at;
  Decimal decimal;
  for (; at_digit(); ++at) decimal.add(number[at], false);
  if (at < number.size() && number[at] == '.') {
    // A point gives room for nothing, but the library tries each digit anew.
    decimal.full = false;
    for (++at; at_digit(); ++at) decimal.add(number[at], true);
  }
  if (at < number.size() && (number[at] == 'e' || number[at] == 'E')) {
    ++at;
    const bool minus = at < number.size() && number[at] == '-';
    if (at < number.size() && !is_digit(number[at])) ++at;
    int64_t exponent = 0;
    for (; at_digit(); ++at) exponent = std::min<int64_t>(exponent * 10 + (number[at] - '0'), 1e6);
    decimal.exponent += minus ? -exponent : exponent;
  }
  return negative ? -decimal.value() : decimal.value();
}

}  // namespace llorch::tok
