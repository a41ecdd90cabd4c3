// Products with quantised weights and rows of quantised tables, by the launchers alone, against the
// oracle, which takes weights for what their blocks stand for and x rounded to bf16.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "backends/cuda/gpu.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/quantised_layout.h"
#include "formats/quant.h"
#include "ops/dtype.h"
#include "ops/ref_ops.h"
#include "ops/test_numbers.h"

namespace llorch::cuda {
namespace {

using ref::Matrix;

constexpr DType kQuantised[] = {DType::kQ8_0, DType::kQ4_0,   DType::kQ4_K,  DType::kQ5_K,
                                DType::kQ6_K, DType::kIQ4_NL, DType::kF8E4M3};
constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

// Blocks of random bits, every code among them; scales are as large as those of real weights.
std::vector<std::byte> random_blocks(DType type, int rows, int cols, uint32_t seed) {
  const BlockLayout layout = block_layout(type);
  std::vector<std::byte> blocks(static_cast<size_t>(rows) * row_bytes(type, cols));
  TestNumbers numbers(seed);
  for (std::byte& byte : blocks) {
    byte = static_cast<std::byte>(numbers.bits() >> 11);
    if (type == DType::kF8E4M3 && (byte & std::byte{0x7f}) == std::byte{0x7f}) byte ^= std::byte{1};
  }
  const auto put = [&](size_t at, double scale) {
    const uint16_t bits = f16_from_f32(static_cast<float>(scale * (0.5 + numbers.unit())));
    std::memcpy(&blocks[at], &bits, sizeof bits);
  };
  for (size_t at = 0; at < blocks.size(); at += static_cast<size_t>(layout.bytes)) {
    if (type == DType::kQ6_K) {
      put(at + 208, 1e-4);
      continue;
    }
    put(at, layout.values == 256 ? 1e-3 : 1e-2);
    if (type == DType::kQ4_K || type == DType::kQ5_K) put(at + 2, 1e-2);
  }
  return blocks;
}

template <class T>
DeviceMemory uploaded(const Gpu& gpu, const std::vector<T>& values) {
  DeviceMemory memory(gpu, values.size() * sizeof(T), "test");
  gpu.upload(memory.data(), values.data(), values.size() * sizeof(T));
  gpu.synchronize();
  return memory;
}

// A weight on the device and what the oracle takes for it.
struct Weights {
  Weights(const Gpu& gpu, DType type, int rows, int cols, uint32_t seed, bool biased = false)
      : blocks(random_blocks(type, rows, cols, seed)), values(rows, cols) {
    dequantize(ggml_type_of(type), blocks, values.values.data());
    const uint64_t row_size = row_bytes(type, cols);
    const int64_t code_size = panel_code_bytes(type, cols),
                  scale_size = panel_scale_bytes(type, cols), panels = panels_of(rows);
    // Their bytes are all written.
    std::vector<std::byte> code_bytes(static_cast<size_t>(panels * code_size), std::byte{0xff}),
        scale_bytes(static_cast<size_t>(panels * scale_size), std::byte{0xff});
    for (int32_t panel = 0; panel < panels; ++panel) {
      std::vector<const std::byte*> pointers;
      for (int r = panel * kPanelRows; r < std::min(rows, (panel + 1) * kPanelRows); ++r) {
        pointers.push_back(blocks.data() + static_cast<uint64_t>(r) * row_size);
      }
      pack_panel_codes(type, pointers, cols, code_bytes.data() + panel * code_size);
      pack_panel_scales(type, pointers, cols, scale_bytes.data() + panel * scale_size);
    }
    codes = uploaded(gpu, code_bytes);
    scales = uploaded(gpu, scale_bytes);
    view = {
        .values = codes.data(), .scales = scales.data(), .rows = rows, .cols = cols, .type = type};
    if (!biased) return;
    bias = TestNumbers(seed + 1).floats(static_cast<size_t>(rows), 2);
    bias_memory = uploaded(gpu, bias);
    view.bias = bias_memory.as<float>();
  }

  std::vector<std::byte> blocks;
  Matrix values;
  std::vector<float> bias;
  DeviceMemory codes, scales, bias_memory;
  WeightRows view;
};

// Rows of x with blocks of very different size, as bf16 holds them.
Matrix uneven_x(int rows, int cols, uint32_t seed) {
  Matrix x(rows, cols);
  x.values = TestNumbers(seed).floats(x.values.size());
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      x.at(r, c) = rounded(x.at(r, c) * std::pow(10.0f, float((r + c / 32) % 5 - 2)), DType::kBF16);
    }
  }
  return x;
}

DeviceMemory rounded_rows(const Gpu& gpu, const Matrix& x) {
  const auto padded = static_cast<size_t>(padded_columns(x.cols));
  std::vector<uint16_t> bits(static_cast<size_t>(x.rows) * padded);
  for (int r = 0; r < x.rows; ++r) {
    for (int c = 0; c < x.cols; ++c) {
      bits[static_cast<size_t>(r) * padded + static_cast<size_t>(c)] = bf16_from_f32(x.at(r, c));
    }
  }
  return uploaded(gpu, bits);
}

Matrix downloaded(const Gpu& gpu, const DeviceMemory& memory, int rows, int cols, size_t stride,
                  size_t first = 0) {
  std::vector<float> all(memory.bytes() / sizeof(float));
  gpu.download(all.data(), memory.data(), memory.bytes());
  gpu.synchronize();
  Matrix out(rows, cols);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      out.at(r, c) = all[first + static_cast<size_t>(r) * stride + static_cast<size_t>(c)];
    }
  }
  return out;
}

struct Options {
  const std::vector<int32_t>* rows = nullptr;  // of x; null: all
  float softcap = 0;
  int32_t left = 0, right = 0;  // columns of `out` that other weights have, before these and behind
  bool scratch = false;
};

Matrix run(const Gpu& gpu, const WeightRows& w, const Matrix& x, const Options& options = {}) {
  const DeviceMemory rounded = rounded_rows(gpu, x);
  const int m = options.rows ? static_cast<int>(options.rows->size()) : x.rows;
  const DeviceMemory rows = options.rows ? uploaded(gpu, *options.rows) : DeviceMemory();
  const auto stride = static_cast<size_t>(options.left + w.rows + options.right);
  const DeviceMemory out(gpu, static_cast<size_t>(m) * stride * sizeof(float), "out");
  const DeviceMemory scratch(gpu, options.scratch ? quantised_scratch_bytes(w.rows, w.cols, m) : 0,
                             "scratch");
  quantised_product(gpu, {.w = w,
                          .x = {.rounded = rounded.as<uint16_t>(), .cols = x.cols},
                          .rows = rows.as<int32_t>(),
                          .m = m,
                          .out = out.as<float>() + options.left,
                          .out_stride = static_cast<int64_t>(stride),
                          .softcap = options.softcap,
                          .scratch = scratch.data(),
                          .scratch_bytes = scratch.bytes()});
  return downloaded(gpu, out, m, w.rows, stride, static_cast<size_t>(options.left));
}

double norm_of(const Matrix& m, int row) {
  double squares = 0;
  for (int c = 0; c < m.cols; ++c) squares += double{m.at(row, c)} * double{m.at(row, c)};
  return std::sqrt(squares);
}

// As tests/conformance has it: an f32 dot product of length n is off by rounding errors of partial
// sums, bounded by the norms; and the minima of a row add up before they cancel out, which makes
// both as large as a value times a small number.
void expect_near(const Matrix& got, const Matrix& want, const Matrix& x, const Matrix& w) {
  constexpr double kCancels = 8;
  ASSERT_EQ(got.rows, want.rows);
  for (int r = 0; r < want.rows; ++r) {
    const double x_norm = norm_of(x, r);
    for (int c = 0; c < want.cols; ++c) {
      const double bound =
          kEpsilon * (8 + 2 * std::sqrt(double(x.cols))) * kCancels * x_norm * norm_of(w, c) +
          kEpsilon * std::abs(double{want.at(r, c)});
      ASSERT_LE(std::abs(double{got.at(r, c)} - double{want.at(r, c)}), bound)
          << "row " << r << ", column " << c << ": got " << got.at(r, c) << ", want "
          << want.at(r, c);
    }
  }
}

Matrix rows_of(const Matrix& x, const std::vector<int32_t>& rows) {
  Matrix out(static_cast<int>(rows.size()), x.cols);
  for (int i = 0; i < out.rows; ++i) {
    for (int c = 0; c < x.cols; ++c) out.at(i, c) = x.at(rows[static_cast<size_t>(i)], c);
  }
  return out;
}

TEST(QuantisedLayout, IsLittleLargerThanTheBlocks) {
  for (const DType type : kQuantised) {
    for (const int cols : {256, 2048, 14336}) {
      const auto stored = static_cast<double>(row_bytes(type, cols)) * kPanelRows;
      const auto packed =
          static_cast<double>(panel_code_bytes(type, cols) + panel_scale_bytes(type, cols));
      EXPECT_GE(packed, stored) << name(type);
      EXPECT_LE(packed, stored * 1.03) << name(type);
    }
  }
}

TEST(QuantisedLayout, SlicesAreWholeHeadersAndCoverTheColumns) {
  for (const int rows : {1, 32, 1000, 4096, 28672, 128256}) {
    for (const int cols : {32, 256, 512, 2880, 4096, 11008, 14336, 28672}) {
      const Slices slices = slices_of(rows, cols);
      EXPECT_GE(slices.count, 1);
      EXPECT_LE(slices.count, 8);
      EXPECT_EQ(slices.units % kHeaderUnits, 0);
      EXPECT_GE(slices.count * slices.units, units_of(cols));
      EXPECT_LT((slices.count - 1) * slices.units, units_of(cols));
    }
  }
  EXPECT_EQ(slices_of(4096, 4096).count, 8);
  EXPECT_EQ(slices_of(28672, 4096).count, 2);
  EXPECT_EQ(slices_of(128256, 4096).count, 1);
}

TEST(QuantisedProduct, IsNearTheOracleOverShapesAndTypes) {
  const Gpu gpu(0);
  for (const DType type : kQuantised) {
    for (const auto& [m, rows, cols] : {std::tuple{1, 33, 256},
                                        {2, 100, 512},
                                        {7, 2, 768},
                                        {8, 31, 256},
                                        {9, 64, 256},
                                        {16, 47, 1280},
                                        {33, 65, 256},
                                        {70, 40, 512},
                                        {130, 19, 256}}) {
      SCOPED_TRACE(testing::Message()
                   << name(type) << ", " << m << " rows, " << cols << " -> " << rows);
      const Weights w(gpu, type, rows, cols, 40, rows % 2 == 1);
      const Matrix x = uneven_x(m, cols, 41);
      const Matrix got = run(gpu, w.view, x);
      expect_near(got, ref::linear(x, w.values, w.bias), x, w.values);
    }
  }
}

TEST(QuantisedProduct, TakesBlocksOf32Columns) {
  const Gpu gpu(0);
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kIQ4_NL, DType::kF8E4M3}) {
    for (const int cols : {32, 96, 1056}) {
      for (const int m : {1, 5, 12, 20}) {
        const Weights w(gpu, type, 37, cols, 43);
        const Matrix x = uneven_x(m, cols, 44);
        expect_near(run(gpu, w.view, x), ref::linear(x, w.values), x, w.values);
      }
    }
  }
}

// A product of one row alone, by the kernels for few rows and for many, with slices that are added
// by one kernel or another, among other rows in other places.
TEST(QuantisedProduct, GivesARowTheSameBitsWhateverItIsComputedWith) {
  const Gpu gpu(0);
  for (const DType type : kQuantised) {
    SCOPED_TRACE(name(type));
    const Weights w(gpu, type, 40, 1280, 45, true);
    ASSERT_EQ(slices_of(40, 1280).count, 2);
    const Matrix x = uneven_x(70, 1280, 46);
    const Matrix all = run(gpu, w.view, x);
    for (const int m : {1, 2, 3, 8, 9, 16, 17, 33}) {
      std::vector<int32_t> rows(static_cast<size_t>(m));
      for (size_t i = 0; i < rows.size(); ++i) {
        rows[i] = static_cast<int32_t>((i * 29 + static_cast<size_t>(m) * 7) % 70);
      }
      for (const bool scratch : {false, true}) {
        const Matrix got = run(gpu, w.view, x, {.rows = &rows, .scratch = scratch});
        EXPECT_EQ(got.values, rows_of(all, rows).values) << m << (scratch ? ", scratch" : "");
        if (m < 17) break;  // no kernel for few rows takes scratch
      }
    }
  }
}

TEST(QuantisedProduct, LeavesOtherColumnsAloneAndCaps) {
  const Gpu gpu(0);
  const Weights w(gpu, DType::kQ4_K, 70, 256, 47, true);
  const Matrix x = uneven_x(20, 256, 48);
  const Matrix plain = run(gpu, w.view, x);
  for (const int m : {3, 20}) {
    std::vector<int32_t> rows(static_cast<size_t>(m));
    std::iota(rows.begin(), rows.end(), 0);
    for (const int32_t left : {4, 5}) {  // aligned, and not
      const Options options{.rows = &rows, .left = left, .right = 10 - left};
      EXPECT_EQ(run(gpu, w.view, x, options).values, rows_of(plain, rows).values);
    }
    const Matrix capped = run(gpu, w.view, x, {.rows = &rows, .softcap = 30});
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < 70; ++c) {
        const double want = 30 * std::tanh(double{plain.at(r, c)} / 30);
        EXPECT_NEAR(capped.at(r, c), want, 1e-5) << r << " " << c;
      }
    }
  }
}

// Enough blocks for tiles of more tokens, and eight slices.
TEST(QuantisedProduct, OfManyRowsAndSlices) {
  const Gpu gpu(0);
  for (const DType type : kQuantised) {
    SCOPED_TRACE(name(type));
    const Weights wide(gpu, type, 290, 1024, 51);
    const Matrix x = uneven_x(300, 1024, 52);
    const Matrix all = run(gpu, wide.view, x);
    expect_near(rows_of(all, {0, 64, 299}), ref::linear(rows_of(x, {0, 64, 299}), wide.values),
                rows_of(x, {0, 64, 299}), wide.values);
    for (const std::vector<int32_t>& rows : {std::vector{0, 63, 64, 65, 128, 299}, {298}}) {
      EXPECT_EQ(run(gpu, wide.view, x, {.rows = &rows}).values, rows_of(all, rows).values);
    }
    const Weights narrow(gpu, type, 16, 4096, 53);
    ASSERT_EQ(slices_of(16, 4096).count, 8);
    const Matrix long_x = uneven_x(18, 4096, 54);
    const Matrix got = run(gpu, narrow.view, long_x);
    expect_near(got, ref::linear(long_x, narrow.values), long_x, narrow.values);
    EXPECT_EQ(run(gpu, narrow.view, long_x, {.scratch = true}).values, got.values);
    for (const std::vector<int32_t>& rows : {std::vector{17}, {3, 5, 9}}) {
      EXPECT_EQ(run(gpu, narrow.view, long_x, {.rows = &rows}).values, rows_of(got, rows).values);
    }
  }
}

// Bytes beside `out`'s own stay what they were.
TEST(QuantisedProduct, WritesNothingBesideItsOutput) {
  const Gpu gpu(0);
  const Weights w(gpu, DType::kQ8_0, 35, 64, 49);
  for (const int m : {1, 40}) {
    const DeviceMemory x = rounded_rows(gpu, uneven_x(m, 64, 50));
    const size_t stride = 48;
    const DeviceMemory out = uploaded(gpu, std::vector<float>(size_t(m) * stride, 7));
    quantised_product(gpu, {.w = w.view,
                            .x = {.rounded = x.as<uint16_t>(), .cols = 64},
                            .m = m,
                            .out = out.as<float>() + 4,
                            .out_stride = static_cast<int64_t>(stride)});
    const Matrix all = downloaded(gpu, out, m, static_cast<int>(stride), stride);
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < static_cast<int>(stride); ++c) {
        EXPECT_EQ(all.at(r, c) == 7, c < 4 || c >= 39) << r << " " << c;
      }
    }
  }
}

// Rows of x to experts, some of which have none: each as if its expert were alone.
TEST(QuantisedProduct, SharesRowsOutAmongExperts) {
  const Gpu gpu(0);
  constexpr int kExperts = 5, kRows = 34, kCols = 512, kTokens = 23;
  for (const DType type : {DType::kQ8_0, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL}) {
    SCOPED_TRACE(name(type));
    std::vector<Weights> weights;
    std::vector<WeightRows> views;
    for (uint32_t e = 0; e < kExperts; ++e) {
      weights.emplace_back(gpu, type, kRows, kCols, 60 + e, true);
      views.push_back(weights.back().view);
    }
    const Matrix x = uneven_x(kTokens, kCols, 70);
    const DeviceMemory rounded = rounded_rows(gpu, x);
    for (const std::vector<int32_t>& counts :
         {std::vector{0, 3, 0, 1, 0}, {1, 19, 0, 2, 1}, {23, 23, 23, 0, 23}, {0, 0, 0, 0, 5}}) {
      std::vector<int32_t> start = {0}, rows;
      for (const int32_t count : counts) {
        for (int32_t i = 0; i < count; ++i) rows.push_back((i * 5 + count) % kTokens);
        start.push_back(static_cast<int32_t>(rows.size()));
      }
      const auto m = static_cast<int32_t>(rows.size());
      const DeviceMemory start_memory = uploaded(gpu, start), rows_memory = uploaded(gpu, rows),
                         views_memory = uploaded(gpu, views);
      const DeviceMemory out(gpu, size_t(m) * kRows * sizeof(float), "out");
      quantised_product(gpu, {.w = {.rows = kRows, .cols = kCols, .type = type},
                              .x = {.rounded = rounded.as<uint16_t>(), .cols = kCols},
                              .rows = rows_memory.as<int32_t>(),
                              .m = m,
                              .out = out.as<float>(),
                              .out_stride = kRows,
                              .experts = {.weights = views_memory.as<WeightRows>(),
                                          .start = start_memory.as<int32_t>(),
                                          .count = kExperts}});
      const Matrix got = downloaded(gpu, out, m, kRows, kRows);
      for (size_t e = 0; e < kExperts; ++e) {
        const std::vector<int32_t> own(rows.begin() + start[e], rows.begin() + start[e + 1]);
        if (own.empty()) continue;
        const Matrix alone = run(gpu, views[e], x, {.rows = &own});
        for (size_t i = 0; i < own.size(); ++i) {
          for (int c = 0; c < kRows; ++c) {
            ASSERT_EQ(got.at(start[e] + static_cast<int>(i), c), alone.at(static_cast<int>(i), c));
          }
        }
      }
    }
  }
}

TEST(EmbedQuantised, GivesWhatTheBlocksStandFor) {
  const Gpu gpu(0);
  for (const DType type : kQuantised) {
    SCOPED_TRACE(name(type));
    const bool k = block_layout(type).values == 256;
    const int rows = 71, cols = k ? 512 : 544, padded = padded_columns(cols);
    const Weights table(gpu, type, rows, cols, 80);
    std::vector<int32_t> ids(rows + 2);
    std::iota(ids.begin(), ids.end(), 99);  // the first and the last are other weights'
    const auto m = static_cast<int32_t>(ids.size());
    const DeviceMemory ids_memory = uploaded(gpu, ids);
    const DeviceMemory values = uploaded(gpu, std::vector<float>(size_t(m) * size_t(cols), 7));
    const DeviceMemory rounded_memory(gpu, size_t(m) * size_t(padded) * 2, "rounded");
    embed_quantised(gpu, {.w = table.view,
                          .first_row = 100,
                          .ids = ids_memory.as<int32_t>(),
                          .m = m,
                          .scale = 0.75f,
                          .out = {.values = values.as<float>(),
                                  .rounded = rounded_memory.as<uint16_t>(),
                                  .cols = cols,
                                  .stride = cols}});
    const Matrix got = downloaded(gpu, values, m, cols, static_cast<size_t>(cols));
    std::vector<uint16_t> bits(size_t(m) * size_t(padded));
    gpu.download(bits.data(), rounded_memory.data(), rounded_memory.bytes());
    gpu.synchronize();
    for (int i = 0; i < m; ++i) {
      const bool there = i >= 1 && i <= rows;
      for (int c = 0; c < padded; ++c) {
        const float want = !there ? 7 : c < cols ? 0.75f * table.values.at(i - 1, c) : 0;
        if (c < cols) {
          ASSERT_EQ(got.at(i, c), want) << i << " " << c;
        }
        if (!there) continue;
        ASSERT_EQ(bits[size_t(i) * size_t(padded) + size_t(c)], bf16_from_f32(want))
            << i << " " << c;
      }
    }
  }
}

}  // namespace
}  // namespace llorch::cuda
