// Conversions against numpy's and torch's, as a hash over many values.
#include "ops/dtype.h"

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

TEST(DType, KeepsNanAndInfinity) {
  const float nan = std::bit_cast<float>(0x7f800001u);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(f32_from_f16(f16_from_f32(nan))));
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(nan))));
  EXPECT_TRUE(std::isnan(f32_from_f16(0x7e00)));
  EXPECT_EQ(f32_from_f16(f16_from_f32(-infinity)), -infinity);
  EXPECT_EQ(f32_from_bf16(bf16_from_f32(infinity)), infinity);
}

TEST(DType, ReadsUnalignedElements) {
  const std::byte bytes[] = {std::byte{9}, std::byte{0x80}, std::byte{0x3f}, std::byte{0},
                             std::byte{0xc0}};
  const std::span<const std::byte> odd = std::span(bytes).subspan(1);
  EXPECT_EQ(to_f32(odd, DType::kBF16, 2), (std::vector<float>{1, -2}));
}

}  // namespace
}  // namespace llorch
