// Conversions against numpy's and torch's, as a hash over many values.
#include "ops/dtype.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "ops/test_numbers.h"

namespace llorch {
namespace {

class Fnv {
 public:
  void add(uint32_t word) { hash_ = (hash_ ^ word) * 0x100000001b3u; }
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

// Bits of numbers of all signs and mantissas from 2^-30 to 2^20.
uint32_t test_bits(TestNumbers& numbers) {
  const uint32_t x = numbers.bits();
  return (x & 0x807fffffu) | ((97 + ((x >> 20) % 51)) << 23);
}

TEST(DType, ReadsEveryF16AsNumpyDoes) {
  Fnv fnv;
  for (uint32_t i = 0; i < 65536; ++i) {
    const float value = f32_from_f16(static_cast<uint16_t>(i));
    if (!std::isnan(value)) fnv.add(std::bit_cast<uint32_t>(value));
  }
  EXPECT_EQ(fnv.hash(), 0xa4d3893bfed78fedu);
}

TEST(DType, RoundsToF16AsNumpyDoes) {
  TestNumbers numbers(1);
  Fnv fnv;
  for (int i = 0; i < 20000; ++i) fnv.add(f16_from_f32(std::bit_cast<float>(test_bits(numbers))));
  EXPECT_EQ(fnv.hash(), 0x626251203b6befb0u);
}

TEST(DType, RoundsToBf16AsTorchDoes) {
  TestNumbers numbers(1);
  Fnv fnv;
  for (int i = 0; i < 20000; ++i) fnv.add(bf16_from_f32(std::bit_cast<float>(test_bits(numbers))));
  EXPECT_EQ(fnv.hash(), 0xe3e270c2278438bbu);
}

// ml_dtypes' float8_e4m3fn, of values within 448.
TEST(DType, ReadsAndRoundsE4M3AsMlDtypesDoes) {
  Fnv read;
  for (uint32_t i = 0; i < 256; ++i) {
    const float value = f32_from_e4m3(static_cast<uint8_t>(i));
    EXPECT_EQ(std::isnan(value), (i & 0x7f) == 0x7f);
    if (!std::isnan(value)) read.add(std::bit_cast<uint32_t>(value));
  }
  EXPECT_EQ(read.hash(), 0xa5e825ec78ff0f9du);
  TestNumbers numbers(1);
  Fnv rounded;
  for (int i = 0; i < 20000; ++i) {
    const uint32_t x = numbers.bits();
    const float value = std::bit_cast<float>((x & 0x807fffffu) | ((112 + ((x >> 20) % 24)) << 23));
    rounded.add(e4m3_from_f32(std::clamp(value, -448.0f, 448.0f)));
  }
  EXPECT_EQ(rounded.hash(), 0x7bef53cf72fb9f48u);
  EXPECT_EQ(e4m3_from_f32(1e9f), 0x7e);
  EXPECT_EQ(e4m3_from_f32(-std::numeric_limits<float>::infinity()), 0xfe);
  EXPECT_EQ(e4m3_from_f32(std::numeric_limits<float>::quiet_NaN()) & 0x7f, 0x7f);
  EXPECT_EQ(e4m3_from_f32(-0x1p-10f), 0x80);  // halfway to the least number
  EXPECT_EQ(e4m3_from_f32(0x1.8p-9f), 0x02);
  EXPECT_EQ(e4m3_from_f32(0x1.fp-7f), 0x08);  // a carry to the least normal number
}

TEST(DType, KeepsNanAndInfinity) {
  const float nan = std::bit_cast<float>(0x7f800001u);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(f32_from_f16(f16_from_f32(nan))));
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(nan))));
  EXPECT_TRUE(std::isnan(f32_from_f16(0x7e00)));
  EXPECT_EQ(f32_from_f16(f16_from_f32(-infinity)), -infinity);
  EXPECT_EQ(f32_from_bf16(bf16_from_f32(infinity)), infinity);
}

TEST(DType, CountsBytesOfRows) {
  EXPECT_EQ(row_bytes(DType::kF32, 33), 132u);
  EXPECT_EQ(row_bytes(DType::kBF16, 33), 66u);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 32), 34u);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 33), 68u);
  EXPECT_EQ(row_bytes(DType::kF8E4M3, 64), 68u);
}

TEST(DType, RoundsRowsToQ8ByBlocks) {
  // The largest magnitude is 127 steps: of 1/4 in the first block, of 2 in the second.
  std::vector<float> row(40), want(40);
  row[0] = want[0] = -31.75f;
  row[1] = 0.3f, want[1] = 0.25f;
  row[2] = 0.375f, want[2] = 0.5f;  // halfway goes to the even number
  row[3] = 0.625f, want[3] = 0.5f;
  row[32] = want[32] = 254;
  row[33] = 0.9f, want[33] = 0;
  round_row(row, DType::kQ8_0);
  EXPECT_EQ(row, want);
}

TEST(DType, RoundsRowsToQ8WithAnF16Scale) {
  TestNumbers numbers(2);
  std::vector<float> row = numbers.floats(kQ8Block, 3);
  const std::vector<float> before = row;
  float most = 0;
  for (const float value : row) most = std::max(most, std::abs(value));
  const float scale = rounded(most / 127, DType::kF16);
  round_row(row, DType::kQ8_0);
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_EQ(row[i] / scale, std::nearbyint(row[i] / scale));
    EXPECT_LE(std::abs(row[i] - before[i]), scale * 0.5001f);
  }
  // Scales below f16's normal numbers are coarse; nothing leaves 127 steps.
  std::vector<float> small = {0x1.8p-24f * 127};
  round_row(small, DType::kQ8_0);
  EXPECT_EQ(small[0], 0x1p-23f * 95);
  std::vector<float> tiny = {1e-9f};
  round_row(tiny, DType::kQ8_0);
  EXPECT_EQ(tiny[0], 0);
  std::vector<float> infinite = {1, std::numeric_limits<float>::infinity()};
  round_row(infinite, DType::kQ8_0);
  EXPECT_TRUE(std::isnan(infinite[0]) && std::isnan(infinite[1]));
}

TEST(DType, RoundsRowsToF8ByBlocks) {
  // A scale of 1/4, then one of 2.
  std::vector<float> row(40), want(40);
  row[0] = want[0] = -112;
  row[1] = 27.4f, want[1] = 28;  // 109.6 of codes that are 8 apart
  row[2] = 0x1.2p-11f, want[2] = 0x1p-11f;
  row[32] = want[32] = 896;
  row[33] = -17, want[33] = -16;  // halfway goes to the even code
  round_row(row, DType::kF8E4M3);
  EXPECT_EQ(row, want);
  std::vector<float> tiny = {1e-9f};
  round_row(tiny, DType::kF8E4M3);
  EXPECT_EQ(tiny[0], 0);
  std::vector<float> infinite = {1, std::numeric_limits<float>::infinity()};
  round_row(infinite, DType::kF8E4M3);
  EXPECT_TRUE(std::isnan(infinite[0]) && std::isnan(infinite[1]));
}

TEST(DType, ReadsUnalignedElements) {
  const std::byte bytes[] = {std::byte{9}, std::byte{0x80}, std::byte{0x3f}, std::byte{0},
                             std::byte{0xc0}};
  const std::span<const std::byte> odd = std::span(bytes).subspan(1);
  EXPECT_EQ(to_f32(odd, DType::kBF16, 2), (std::vector<float>{1, -2}));
}

}  // namespace
}  // namespace llorch
