#include "model/finite.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace llorch {
namespace {

template <class T>
std::optional<size_t> find(const std::vector<T>& values, DType type, DType target, size_t skew) {
  std::vector<std::byte> bytes(values.size() * sizeof(T) + skew);
  std::memcpy(bytes.data() + skew, values.data(), values.size() * sizeof(T));
  return find_not_finite(std::span(bytes).subspan(skew), type, target);
}

TEST(FindNotFinite, FindsOneBadValueWhereverItLies) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {nan, -nan, INFINITY, -INFINITY}) {
    for (const size_t at : {0u, 1u, 6u, 1023u, 1024u, 2050u}) {
      std::vector<float> values(2051, std::numeric_limits<float>::lowest());
      EXPECT_FALSE(find(values, DType::kF32, DType::kF32, 1));
      values[at] = bad;
      values.push_back(bad);
      EXPECT_EQ(find(values, DType::kF32, DType::kF32, 1), at);
    }
  }
}

TEST(FindNotFinite, ChecksEveryPatternOf16Bits) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    const uint32_t exponent = type == DType::kF16 ? 0x7C00 : 0x7F80;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      std::vector<uint16_t> values(7, 0x3C00);
      values[bits % 7] = static_cast<uint16_t>(bits);
      const bool bad = (bits & exponent) == exponent;
      const auto found = find(values, type, type, 0);
      ASSERT_EQ(found, bad ? std::optional<size_t>(bits % 7) : std::nullopt) << bits;
    }
  }
}

TEST(FindNotFinite, CountsWhatF16CannotHold) {
  const float largest = std::nextafter(65520.0f, 0.0f);  // still rounds to 65504
  EXPECT_FALSE(find<float>({largest, -largest, 1}, DType::kF32, DType::kF16, 0));
  EXPECT_EQ(find<float>({1, -65520.0f}, DType::kF32, DType::kF16, 0), 1u);
  EXPECT_FALSE(find<float>({65520.0f, 1e38f}, DType::kF32, DType::kBF16, 0));
  EXPECT_FALSE(find<uint16_t>({0x477F, 0xC77F}, DType::kBF16, DType::kF16, 0));  // 65280
  EXPECT_EQ(find<uint16_t>({0x477F, 0xC780}, DType::kBF16, DType::kF16, 0), 1u);
}

TEST(FindNotFinite, AcceptsNothing) { EXPECT_FALSE(find_not_finite({}, DType::kF32, DType::kF32)); }

}  // namespace
}  // namespace llorch
