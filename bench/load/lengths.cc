#include "load/lengths.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace llorch::bench {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> pieces = {""};
  for (const char c : text) {
    if (c == separator) {
      pieces.emplace_back();
    } else {
      pieces.back() += c;
    }
  }
  return pieces;
}

double positive_number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0) || value > 1e9) {
    throw std::invalid_argument("'" + text + "' is not a positive number");
  }
  return value;
}

std::vector<double> positive_numbers(const std::string& text, char separator) {
  std::vector<double> values;
  for (const std::string& piece : split(text, separator)) values.push_back(positive_number(piece));
  return values;
}

}  // namespace

LengthMix LengthMix::parse(const std::string& text) {
  LengthMix mix;
  for (const std::string& piece : split(text, '+')) mix.parts_.push_back(parse_part(piece));
  return mix;
}

LengthMix::Part LengthMix::parse_part(const std::string& text) {
  Part part;
  std::string rest = text;
  if (const size_t star = rest.find('*'); star != std::string::npos) {
    part.weight = positive_number(rest.substr(0, star));
    rest = rest.substr(star + 1);
  }
  const size_t colon = rest.find(':');
  if (colon == std::string::npos) {
    part.a = positive_number(rest);
    return part;
  }
  const std::string kind = rest.substr(0, colon), arguments = rest.substr(colon + 1);
  if (kind == "uniform") {
    const std::vector<double> range = positive_numbers(arguments, '-');
    if (range.size() == 2 && range[0] <= range[1]) {
      part.kind = Kind::kUniform;
      part.a = range[0], part.b = range[1];
      return part;
    }
  } else if (kind == "lognormal") {
    const std::vector<double> shape = positive_numbers(arguments, ',');
    if (shape.size() == 2 || shape.size() == 3) {
      part.kind = Kind::kLognormal;
      part.a = shape[0], part.b = shape[1];
      if (shape.size() == 3) part.most = shape[2];
      return part;
    }
  }
  throw std::invalid_argument("'" + text +
                              "' is no length: N, uniform:A-B, lognormal:MEDIAN,SIGMA[,MAX]");
}

int LengthMix::draw(Random& random) const {
  double total = 0;
  for (const Part& part : parts_) total += part.weight;
  double place = std::uniform_real_distribution<>(0, total)(random);
  size_t chosen = 0;
  while (chosen + 1 < parts_.size() && place >= parts_[chosen].weight) {
    place -= parts_[chosen++].weight;
  }
  const Part& part = parts_[chosen];
  double length = part.a;
  if (part.kind == Kind::kUniform) {
    length = static_cast<double>(
        std::uniform_int_distribution<int64_t>(std::llround(part.a), std::llround(part.b))(random));
  } else if (part.kind == Kind::kLognormal) {
    length = part.a * std::exp(part.b * std::normal_distribution<>()(random));
  }
  return static_cast<int>(std::clamp(std::round(length), 1.0, part.most));
}

}  // namespace llorch::bench
