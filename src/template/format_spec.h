// Python's format specifications, which format(), str.format and % share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "template/value.h"

namespace llorch::tmpl {

// [[fill]align][sign][z][#][0][width][grouping][.precision][type]
struct FormatSpec {
  std::string fill = " ";
  char align = 0, sign = '-', grouping = 0, type = 0;
  bool alternate = false;
  bool zero = false;  // a 0 before the width has set the alignment
  int64_t width = 0, precision = -1;
};

FormatSpec parse_spec(std::string_view text);
int64_t read_number(std::string_view text, size_t& at);  // decimal digits; moves `at` behind them
std::string sign_text(bool negative, char sign);
// Filled up to the width; `align` where the specification has none.
std::string padded(const std::string& sign, const std::string& body, const FormatSpec& s,
                   char align);
std::string format_text(const std::string& text, const FormatSpec& s);
std::string format_integer(const Value& v, const FormatSpec& s);
std::string format_float(double d, const FormatSpec& s);

}  // namespace llorch::tmpl
