// Mixes of lengths, as told on the command line.
#pragma once

#include <random>
#include <string>
#include <vector>

namespace llorch::bench {

using Random = std::mt19937_64;

// Parts joined by `+`, each with its weight before `*` (1 if left out):
//   128                         always 128
//   uniform:16-512              each length as likely
//   lognormal:200,0.8[,4096]    median, sigma of the logarithm, at most
// so `0.9*uniform:16-256+0.1*4096` is nine short ones for a long one. Never less than 1.
class LengthMix {
 public:
  // Throws std::invalid_argument.
  static LengthMix parse(const std::string& text);

  int draw(Random& random) const;

 private:
  enum class Kind { kFixed, kUniform, kLognormal };
  struct Part {
    Kind kind = Kind::kFixed;
    double weight = 1;
    double a = 1, b = 1;  // the length; least and most; median and sigma
    double most = 1'000'000;
  };
  static Part parse_part(const std::string& text);

  std::vector<Part> parts_;
};

}  // namespace llorch::bench
