// Blocks taken apart are what dequantize() makes of them, which is the gguf package's.
#include "ops/unpack.h"

#include <bit>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "formats/quant.h"
#include "ops/dtype.h"
#include "ops/test_numbers.h"

namespace llorch {
namespace {

constexpr float kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

float value_of(DType type, const BlockScales& scales, int index, uint8_t code) {
  const auto q = static_cast<float>(code);
  const auto part = static_cast<size_t>(index / 32);
  switch (type) {
    case DType::kQ8_0:
      return (q - 128) * scales.d;
    case DType::kQ4_0:
      return (q - 8) * scales.d;
    case DType::kF8E4M3:
      return scales.d * f32_from_e4m3(code);
    case DType::kIQ4_NL:
      return kNonLinear[code] * scales.d;
    case DType::kQ6_K: {
      const auto scale = static_cast<int8_t>(scales.scales[index / 16]);
      return scales.d * static_cast<float>(scale) * (q - 32);
    }
    default:
      return scales.d * static_cast<float>(scales.scales[part]) * q -
             scales.dmin * static_cast<float>(scales.mins[part]);
  }
}

TEST(Unpack, GivesWhatBlocksStandFor) {
  TestNumbers numbers(1);
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                           DType::kIQ4_NL, DType::kF8E4M3}) {
    const BlockLayout layout = block_layout(type);
    for (int i = 0; i < 500; ++i) {
      std::vector<std::byte> block(static_cast<size_t>(layout.bytes));
      for (std::byte& byte : block) byte = static_cast<std::byte>(numbers.bits() >> 13);
      if (type == DType::kF8E4M3) {  // some have no NaN
        for (std::byte& byte : block) byte &= i % 2 ? std::byte{0xff} : std::byte{0xfb};
      }
      std::vector<float> want(static_cast<size_t>(layout.values));
      dequantize(ggml_type_of(type), block, want.data());
      bool all_finite = true;
      for (const float v : want) all_finite = all_finite && std::isfinite(v);
      const BlockScales scales = unpack_scales(type, block.data());
      // A scale that is not finite may meet zeros only, but is none that a model has.
      if (!is_finite(type, block.data())) continue;
      EXPECT_TRUE(all_finite) << name(type);
      for (int part = 0; part < layout.values / 32; ++part) {
        uint8_t codes[32];
        unpack_codes(type, block.data(), part, codes);
        for (int k = 0; k < 32; ++k) {
          const int index = part * 32 + k;
          ASSERT_EQ(std::bit_cast<uint32_t>(value_of(type, scales, index, codes[k])),
                    std::bit_cast<uint32_t>(want[static_cast<size_t>(index)]))
              << name(type) << " value " << index;
        }
      }
    }
  }
}

TEST(Unpack, KnowsScalesThatAreNotFinite) {
  for (const auto& [type, places] : {std::pair{DType::kQ8_0, std::vector<size_t>{0}},
                                     {DType::kQ4_0, {0}},
                                     {DType::kIQ4_NL, {0}},
                                     {DType::kF8E4M3, {0}},
                                     {DType::kQ4_K, {0, 2}},
                                     {DType::kQ5_K, {0, 2}},
                                     {DType::kQ6_K, {208}}}) {
    for (const size_t place : places) {
      for (const int high : {0x7C, 0xFC, 0x7E}) {
        std::vector<std::byte> block(static_cast<size_t>(block_layout(type).bytes));
        EXPECT_TRUE(is_finite(type, block.data()));
        block[place + 1] = static_cast<std::byte>(high);
        EXPECT_FALSE(is_finite(type, block.data())) << name(type) << " " << place;
      }
    }
  }
  for (const int code : {0x7F, 0xFF}) {
    for (const size_t place : {size_t{2}, size_t{33}}) {
      std::vector<std::byte> block(34);
      block[place] = static_cast<std::byte>(code);
      EXPECT_FALSE(is_finite(DType::kF8E4M3, block.data())) << place;
    }
  }
}

}  // namespace
}  // namespace llorch
