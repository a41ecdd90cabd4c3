#include "ops/rope_frequencies.h"

#include <cmath>

namespace llorch {
namespace {

// Rounded to f32, as torch's pow gives it; an exponent that is a number of Python's stays f64.
float power(float base, double exponent) {
  return static_cast<float>(std::pow(double{base}, exponent));
}

}  // namespace

std::span<const float> rope_frequencies(const Rope& rope, int32_t rope_len,
                                        std::span<float> scratch) {
  if (rope.trained == 0 || rope_len <= rope.trained) return rope.inv_freq;
  if (rope.ntk_factor == 0) return rope.long_inv_freq;
  const double exponent = rope.dims / (rope.dims - 2.0);
  const float ratio = static_cast<float>(rope.ntk_factor) * static_cast<float>(rope_len) /
                      static_cast<float>(rope.trained);
  const float stretch = ratio - static_cast<float>(rope.ntk_factor - 1);
  const float base = static_cast<float>(rope.theta) * power(stretch, exponent);
  const auto pairs = static_cast<size_t>(rope.dims / 2);
  for (size_t i = 0; i < pairs; ++i) {
    scratch[i] = 1 / power(base, double{static_cast<float>(2 * i) / static_cast<float>(rope.dims)});
  }
  return scratch.first(pairs);
}

}  // namespace llorch
