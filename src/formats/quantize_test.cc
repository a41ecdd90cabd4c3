// Quantised blocks against the gguf package's, as a hash, and how far they are from the values.
#include "formats/quantize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/os.h"
#include "formats/safetensors.h"
#include "ops/dtype.h"
#include "ops/test_numbers.h"

namespace llorch {
namespace {

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

// tools/quantize_diff.py --expected prints what the package gives of these numbers.
TEST(Quantize, GivesThePackagesBlocks) {
  std::vector<float> values = TestNumbers(7).floats(65536, 3);
  for (size_t i = 4096; i < 8192; ++i) values[i] = 0;
  EXPECT_EQ(fnv(quantized(DType::kQ8_0, values)), 0x17e989f5b1444325u);
  EXPECT_EQ(fnv(quantized(DType::kQ4_0, values)), 0x77cd9334ef46a23cu);
}

// numpy's float16 and ml_dtypes' float8_e4m3fn: codes of x * (1 / d), d = f16(highest / 448).
TEST(Quantize, GivesMlDtypesE4M3) {
  std::vector<float> values = TestNumbers(7).floats(65536, 3);
  for (size_t i = 4096; i < 8192; ++i) values[i] = 0;
  EXPECT_EQ(fnv(quantized(DType::kF8E4M3, values)), 0xe3ea0aa646d0c751u);
  EXPECT_NEAR(mean_square(values, there_and_back(DType::kF8E4M3, values)), 0.00166330580, 1e-9);
}

std::vector<float> normal_numbers() {
  TestNumbers numbers(2);
  std::vector<float> values(65536);
  for (float& v : values) {
    double sum = 0;
    for (int i = 0; i < 12; ++i) sum += numbers.unit();
    v = static_cast<float>((sum - 6) * 0.02);
  }
  return values;
}

std::vector<float> heavy_tailed_numbers() {
  TestNumbers numbers(3);
  std::vector<float> values(65536);
  for (float& v : values) {
    const double x = numbers.unit() * 2 - 1;
    v = static_cast<float>(x / (1.02 - x * x));
  }
  return values;
}

std::vector<float> trained_numbers() {
  const std::string path = "models/tiny/model.safetensors";
  const os::MappedFile file(path);
  for (const StoredTensor& tensor : parse_safetensors(file.bytes(), path)) {
    if (tensor.name == "model.layers.0.mlp.down_proj.weight") {
      return to_f32(tensor.bytes, DType::kBF16, tensor.bytes.size() / 2);
    }
  }
  return {};
}

// The bounds are 1.02 of the mean squared errors of ggml_quantize_chunk() for the same numbers, as
// tools/quantize_diff.py --expected --ggml prints them. Ours were 0.86 to 0.99 of them.
TEST(Quantize, ErrsNoMoreThanGgmlDoes) {
  const struct {
    const char* name;
    std::vector<float> values;
    double q4_k, q5_k, q6_k, iq4_nl;
  } cases[] = {
      {"uniform", TestNumbers(1).floats(65536), 9.947e-4, 2.537e-4, 5.857e-5, 1.374e-3},
      {"normal", normal_numbers(), 1.999e-6, 5.098e-7, 1.229e-7, 2.277e-6},
      {"heavy tails", heavy_tailed_numbers(), 0.2445, 0.07164, 0.02233, 0.2767},
      {"trained", trained_numbers(), 1.196e-5, 3.061e-6, 7.33e-7, 1.362e-5},
  };
  for (const auto& c : cases) {
    ASSERT_FALSE(c.values.empty()) << c.name;
    const auto error = [&](DType type) {
      return mean_square(c.values, there_and_back(type, c.values));
    };
    EXPECT_LT(error(DType::kQ4_K), c.q4_k * 1.02) << c.name;
    EXPECT_LT(error(DType::kQ5_K), c.q5_k * 1.02) << c.name;
    EXPECT_LT(error(DType::kQ6_K), c.q6_k * 1.02) << c.name;
    EXPECT_LT(error(DType::kIQ4_NL), c.iq4_nl * 1.02) << c.name;
  }
}

// Values of one sign or both, of many sizes or one, or mostly zeros.
std::vector<float> odd_numbers(uint32_t kind, double scale) {
  std::vector<float> values = TestNumbers(9 + kind).floats(2048, scale);
  for (size_t i = 0; i < values.size(); ++i) {
    if (kind == 1) values[i] = std::abs(values[i]);
    if (kind == 2) values[i] = -std::abs(values[i]);
    if (kind == 3 && i % 61 != 0) values[i] = 0;
    if (kind == 4) values[i] = static_cast<float>(scale) + values[i] / 1024;
    if (kind == 5) values[i] = static_cast<float>(-scale);
    if (kind == 6) values[i] = static_cast<float>(i % 2 == 0 ? scale : -scale);
  }
  return values;
}

// The codes around zero that a type has, the f16s that its highest value is of, and the widest gap
// between codes.
struct Range {
  DType type;
  float codes, f16s, gap;
};
constexpr Range kRanges[] = {{DType::kQ8_0, 127, 127, 1},   {DType::kQ4_0, 8, 8, 1},
                             {DType::kQ4_K, 7.5, 63, 1},    {DType::kQ5_K, 15.5, 63, 1},
                             {DType::kQ6_K, 32, 3937, 1},   {DType::kIQ4_NL, 127, 113, 24},
                             {DType::kF8E4M3, 448, 448, 32}};

// Whatever the values, those of a block are finite, and none is further off than three of the steps
// that the block's highest calls for. A value too large becomes the highest that there is.
TEST(Quantize, StaysFiniteAndNear) {
  for (const Range& range : kRanges) {
    for (const double scale : {0.0, 1e-45, 1e-38, 1e-20, 1e-8, 1e-6, 1e-4, 1.0, 3e4, 3e6, 1e30}) {
      for (uint32_t kind = 0; kind < 7; ++kind) {
        const auto values = odd_numbers(kind, scale);
        const auto back = there_and_back(range.type, values);
        const auto size = static_cast<size_t>(block_layout(range.type).values);
        for (size_t i = 0; i < values.size(); ++i) {
          const float limit = range.f16s * 65504;
          float highest = 0;
          for (size_t k = i / size * size; k < (i / size + 1) * size; ++k) {
            highest = std::max(highest, std::min(std::abs(values[k]), limit));
          }
          // A scale is off by up to half of f16's smallest step.
          const double step = double{highest} / range.codes * range.gap,
                       lost = double{range.codes} * 2 * 0x1p-25;
          const double want = std::clamp(values[i], -limit, limit);
          ASSERT_TRUE(std::isfinite(back[i])) << name(range.type) << " " << scale << " " << kind;
          ASSERT_LE(std::abs(back[i] - want), 3 * step + lost)
              << name(range.type) << " " << scale << " " << kind << " " << i;
        }
      }
    }
  }
}

// Where f16 scales are coarse, a block of Q4_K, Q5_K and Q6_K need not be: its smaller scales make
// up for it.
TEST(Quantize, KeepsSmallValues) {
  const auto values = TestNumbers(10).floats(65536, 1e-5);
  const double whole = mean_square(values, std::vector<float>(values.size()));
  for (const DType type : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    EXPECT_LT(mean_square(values, there_and_back(type, values)), whole / 100) << name(type);
  }
}

}  // namespace
}  // namespace llorch
