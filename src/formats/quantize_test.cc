// Quantised blocks against the gguf package's, as a hash, and how far they are from the values.
#include "formats/quantize.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "ops/dtype.h"
#include "ops/test_numbers.h"

namespace llorch {
namespace {

constexpr DType kAll[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                          DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL};

std::vector<std::byte> quantized(DType type, const std::vector<float>& values) {
  std::vector<std::byte> blocks(row_bytes(type, static_cast<int64_t>(values.size())));
  quantize(ggml_type_of(type), values, blocks.data());
  return blocks;
}

std::vector<float> there_and_back(DType type, const std::vector<float>& values) {
  std::vector<float> back(values.size());
  dequantize(ggml_type_of(type), quantized(type, values), back.data());
  return back;
}

double mean_square(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return sum / static_cast<double>(a.size());
}

uint64_t fnv(const std::vector<std::byte>& bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte byte : bytes)
    hash = (hash ^ std::to_integer<uint64_t>(byte)) * 0x100000001b3u;
  return hash;
}

// tools/quantize_diff.py --hash prints what the package gives of these numbers.
TEST(Quantize, GivesThePackagesBlocks) {
  std::vector<float> values = TestNumbers(7).floats(65536, 3);
  for (size_t i = 4096; i < 8192; ++i) values[i] = 0;
  EXPECT_EQ(fnv(quantized(DType::kQ8_0, values)), 0x17e989f5b1444325u);
  EXPECT_EQ(fnv(quantized(DType::kQ4_0, values)), 0x77cd9334ef46a23cu);
}

// ggml's own errors for numbers between -1 and 1 (tools/quantize_diff.py --ggml): Q4_K 9.9e-4,
// Q5_K 2.54e-4, Q6_K 5.84e-5, IQ4_NL 1.37e-3.
TEST(Quantize, ErrsAboutAsGgmlDoes) {
  const std::vector<float> values = TestNumbers(8).floats(65536);
  const auto error = [&](DType type) { return mean_square(values, there_and_back(type, values)); };
  EXPECT_LT(error(DType::kQ4_K), 9.9e-4 * 1.05);
  EXPECT_LT(error(DType::kQ5_K), 2.54e-4 * 1.05);
  EXPECT_LT(error(DType::kQ6_K), 5.84e-5 * 1.05);
  EXPECT_LT(error(DType::kIQ4_NL), 1.37e-3 * 1.05);
}

// Whatever the values, blocks are finite, and no value is further off than a few of its block's
// steps.
TEST(Quantize, StaysFiniteAndNear) {
  for (const double scale : {0.0, 1e-45, 1e-38, 1e-20, 1e-8, 1.0, 3e4}) {
    for (const uint32_t kind : {0u, 1u, 2u}) {
      std::vector<float> values = TestNumbers(9 + kind).floats(2048, scale);
      for (size_t i = 0; i < values.size(); ++i) {
        if (kind == 1) values[i] = std::abs(values[i]);
        if (kind == 2 && i % 61 != 0) values[i] = 0;
      }
      for (const DType type : kAll) {
        const auto back = there_and_back(type, values);
        for (size_t i = 0; i < values.size(); ++i) {
          ASSERT_TRUE(std::isfinite(back[i])) << name(type) << " " << scale;
          // Scales below f16's smallest step are lost.
          ASSERT_LE(std::abs(double{back[i]} - double{values[i]}), scale / 4 + 1e-5)
              << name(type) << " " << scale << " " << i;
        }
      }
    }
  }
  for (const DType type : kAll) {
    for (const float v : there_and_back(type, TestNumbers(12).floats(2048, 1e30))) {
      ASSERT_TRUE(std::isfinite(v)) << name(type);
    }
  }
}

}  // namespace
}  // namespace llorch
