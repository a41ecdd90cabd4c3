// Numbers for tests that any language makes alike: a linear congruential generator.
#pragma once

#include <cstdint>
#include <vector>

namespace llorch {

class TestNumbers {
 public:
  explicit TestNumbers(uint32_t seed) : state_(seed) {}
  uint32_t bits() { return state_ = state_ * 1664525u + 1013904223u; }
  double unit() { return (bits() >> 8) * 0x1p-24; }  // [0, 1)
  // `count` values in [-scale, scale).
  std::vector<float> floats(size_t count, double scale = 1) {
    std::vector<float> values(count);
    for (float& v : values) v = static_cast<float>(unit() * 2 * scale - scale);
    return values;
  }

 private:
  uint32_t state_;
};

}  // namespace llorch
