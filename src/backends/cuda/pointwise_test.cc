// Embedding, norms, sums and activations of rows against the scalar oracle.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include "backends/cuda/kernels.h"
#include "backends/cuda/test_arrays.h"
#include "gtest/gtest.h"
#include "ops/dtype.h"
#include "ops/ref_ops.h"
#include "ops/test_numbers.h"

namespace llorch::cuda {
namespace {

using ref::Matrix;

Matrix random_rows(int rows, int cols, uint32_t seed, double scale = 1) {
  Matrix m(rows, cols);
  m.values = TestNumbers(seed).floats(m.values.size(), scale);
  return m;
}

// A rounded row is the values' nearest bf16, or f16 in bounds, zeros behind them.
void expect_rounded(const std::vector<uint16_t>& rounded, const std::vector<float>& values,
                    int32_t cols, DType type = DType::kBF16) {
  const auto width = static_cast<size_t>(cols), padded = static_cast<size_t>(padded_columns(cols));
  for (size_t i = 0; i < rounded.size(); ++i) {
    const size_t row = i / padded, c = i % padded;
    float v = c < width ? values[row * width + c] : 0;
    if (type == DType::kF16 && std::isfinite(v)) v = std::clamp(v, -65504.0f, 65504.0f);
    const uint16_t want = type == DType::kF16 ? f16_from_f32(v) : bf16_from_f32(v);
    ASSERT_EQ(rounded[i], want) << "row " << row << ", column " << c;
  }
}

// ---- embed

// `table` as a weight's rows in device memory; rounds its values to `type`.
std::vector<std::byte> packed_rows(Matrix* table, DType type) {
  const size_t size = size_bytes(type), stride = static_cast<size_t>(padded_columns(table->cols));
  std::vector<std::byte> bytes(static_cast<size_t>(table->rows) * stride * size);
  for (int r = 0; r < table->rows; ++r) {
    for (int c = 0; c < table->cols; ++c) {
      float& v = table->at(r, c);
      std::byte* const to =
          &bytes[(static_cast<size_t>(r) * stride + static_cast<size_t>(c)) * size];
      const uint16_t half = type == DType::kF16 ? f16_from_f32(v) : bf16_from_f32(v);
      v = rounded(v, type);
      std::memcpy(to, type == DType::kF32 ? static_cast<const void*>(&v) : &half, size);
    }
  }
  return bytes;
}

TEST(Embed, GathersAndScalesTheRowsThatLieInIt) {
  const Gpu gpu(0);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int cols : {3, 17, 64, 100, 259, 2052}) {
      SCOPED_TRACE(testing::Message() << name(type) << " " << cols);
      Matrix table = random_rows(7, cols, 1);
      const TestArray<std::byte> w(gpu, packed_rows(&table, type));
      const std::vector<int32_t> ids = {12, 10, 9, 16, 17, 10, 0, 13};  // rows 10 to 16 are here
      const TestArray<int32_t> device_ids(gpu, ids);
      const TestRows out(gpu, 8, cols);
      embed(gpu, {.w = {.values = w.data(), .rows = 7, .cols = cols, .type = type},
                  .first_row = 10,
                  .ids = device_ids.data(),
                  .m = 8,
                  .scale = 0.7f,
                  .out = out.view});
      const auto values = out.values.get();
      const auto rounded = out.rounded.get();
      for (size_t i = 0; i < ids.size(); ++i) {
        const int row = ids[i] - 10;
        for (int c = 0; c < padded_columns(cols); ++c) {
          const auto at = i * static_cast<size_t>(cols) + static_cast<size_t>(c);
          const uint16_t half =
              rounded[i * static_cast<size_t>(padded_columns(cols)) + static_cast<size_t>(c)];
          if (row < 0 || row >= 7) {
            ASSERT_TRUE(c >= cols || std::isnan(values[at]));
            ASSERT_EQ(half, 0xffff);
          } else if (c < cols) {
            ASSERT_EQ(values[at], table.at(row, c) * 0.7f);
            ASSERT_EQ(half, bf16_from_f32(values[at]));
          } else {
            ASSERT_EQ(half, 0);
          }
        }
      }
    }
  }
}

// ---- norm

double row_norm(const Matrix& m, int row) {
  double squares = 0;
  for (int c = 0; c < m.cols; ++c) squares += double{m.at(row, c)} * double{m.at(row, c)};
  return std::sqrt(squares);
}

// As in tests/conformance: of an f32 dot product of length n.
double dot_tolerance(double norm_a, double norm_b, int n) {
  return kTestEpsilon * (8 + 2 * std::sqrt(static_cast<double>(n))) * norm_a * norm_b;
}

// How far a row's norm may be from the oracle's, as tests/conformance/ops_test.cc derives it.
class NormBound {
 public:
  NormBound(const Matrix& x, int row, const ref::NormSpec& spec) : x_(x), row_(row), spec_(spec) {
    double squares = 0;
    for (int i = 0; i < x.cols; ++i) mean_ += double{x.at(row, i)} / x.cols;
    for (int i = 0; i < x.cols; ++i) squares += std::pow(double{x.at(row, i)} - mean_, 2);
    deviation_ = std::sqrt(squares / x.cols + double{spec.eps});
    mean_error_ = dot_tolerance(row_norm(x, row), 1 / std::sqrt(x.cols), x.cols);
  }
  double of(int c, double want) const {
    const auto at = static_cast<size_t>(c);
    const double scaled = std::abs(want - (spec_.bias.empty() ? 0 : double{spec_.bias[at]}));
    const double bound = dot_tolerance(1, 1, x_.cols) * scaled + kTestEpsilon * std::abs(want);
    if (spec_.kind == NormKind::kRms) return bound;
    const double moved =
        mean_error_ + kTestEpsilon * (std::abs(double{x_.at(row_, c)}) + std::abs(mean_));
    return bound + moved / deviation_ * (std::abs(double{spec_.gain[at]}) + scaled);
  }

 private:
  const Matrix& x_;
  int row_;
  const ref::NormSpec& spec_;
  double mean_ = 0, deviation_ = 0, mean_error_ = 0;
};

struct NormCase {
  NormKind kind;
  bool biased;
};
constexpr NormCase kNorms[] = {
    {NormKind::kRms, false}, {NormKind::kLayer, false}, {NormKind::kLayer, true}};

// A norm's weights on the device and in the oracle.
struct TestNorm {
  TestNorm(const Gpu& gpu, const NormCase& c, int cols)
      : gains(TestNumbers(3).floats(static_cast<size_t>(cols))),
        biases(TestNumbers(4).floats(static_cast<size_t>(cols))),
        gain(gpu, gains),
        bias(gpu, biases),
        vectors{gain.data(), c.biased ? bias.data() : nullptr, 1e-5f, c.kind == NormKind::kLayer},
        spec{c.kind, 1e-5f, gains, {}} {
    if (c.biased) spec.bias = biases;
  }
  std::vector<float> gains, biases;
  TestArray<float> gain, bias;
  NormVectors vectors;
  ref::NormSpec spec;
};

TEST(Norm, OfASumAndOfARow) {
  const Gpu gpu(0);
  constexpr int kRows = 3;
  for (const NormCase& c : kNorms) {
    for (const int cols : {2, 7, 16, 17, 64, 100, 577, 2048, 8191, 8200, 16385}) {
      SCOPED_TRACE(testing::Message() << (c.kind == NormKind::kRms ? "rms of " : "layer of ")
                                      << cols << (c.biased ? " with a bias" : ""));
      const TestNorm n(gpu, c, cols);
      Matrix x = random_rows(kRows, cols, 1, 5);
      for (int i = 0; i < cols; ++i) x.at(1, i) += 40;  // a mean far from zero
      const Matrix sum = random_rows(kRows, cols, 2, 2);
      const TestArray<float> device_x(gpu, x.values), device_sum(gpu, sum.values);
      for (const bool summed : {false, true}) {
        const TestRows out(gpu, kRows, cols);
        const TestArray<float> total(gpu, x.values.size());
        norm(gpu, {.x = device_x.data(),
                   .sum = summed ? device_sum.data() : nullptr,
                   .total = summed ? total.data() : nullptr,
                   .norm = n.vectors,
                   .out = out.view,
                   .m = kRows});
        const Matrix of = summed ? ref::add(x, sum) : x;
        const Matrix want = ref::norm(of, n.spec);
        const auto got = out.values.get();
        if (summed) {
          EXPECT_EQ(total.get(), of.values);
        }
        for (int r = 0; r < kRows; ++r) {
          const NormBound bound(of, r, n.spec);
          for (int i = 0; i < cols; ++i) {
            const auto at =
                static_cast<size_t>(r) * static_cast<size_t>(cols) + static_cast<size_t>(i);
            ASSERT_LE(std::abs(double{got[at]} - double{want.at(r, i)}),
                      bound.of(i, double{want.at(r, i)}))
                << "row " << r << ", column " << i;
          }
        }
        expect_rounded(out.rounded.get(), got, cols);
      }
    }
  }
}

TEST(Norm, WritesTheSumWhereOneOfItsPartsWas) {
  const Gpu gpu(0);
  constexpr int kRows = 2, kCols = 70;
  const TestNorm n(gpu, kNorms[0], kCols);
  const Matrix x = random_rows(kRows, kCols, 1), sum = random_rows(kRows, kCols, 2);
  const TestRows apart(gpu, kRows, kCols), into_x(gpu, kRows, kCols), into_sum(gpu, kRows, kCols);
  const auto run = [&](const TestArray<float>& a, const TestArray<float>& b, float* total,
                       const TestRows& out) {
    norm(gpu, {a.data(), b.data(), total, n.vectors, out.view, kRows});
    gpu.synchronize();
  };
  const TestArray<float> a(gpu, x.values), b(gpu, sum.values);
  run(a, b, nullptr, apart);
  run(a, b, b.data(), into_sum);
  EXPECT_EQ(b.get(), ref::add(x, sum).values);
  const TestArray<float> c(gpu, sum.values);
  run(a, c, a.data(), into_x);
  EXPECT_EQ(a.get(), ref::add(x, sum).values);
  EXPECT_EQ(bits_of_all(into_x.values.get()), bits_of_all(apart.values.get()));
  EXPECT_EQ(bits_of_all(into_sum.values.get()), bits_of_all(apart.values.get()));
}

// A row's result is the same alone and among others, and whether or not both forms are wanted.
TEST(Norm, GivesARowOneAnswer) {
  const Gpu gpu(0);
  for (const int cols : {96, 257, 4096}) {
    for (const NormCase& c : kNorms) {
      const TestNorm n(gpu, c, cols);
      const Matrix x = random_rows(5, cols, 6, 3);
      const TestArray<float> all(gpu, x.values);
      const TestRows together(gpu, 5, cols), alone(gpu, 1, cols, true, false),
          half(gpu, 1, cols, false, true);
      norm(gpu, {.x = all.data(), .norm = n.vectors, .out = together.view, .m = 5});
      norm(gpu, {.x = all.data() + 3 * cols, .norm = n.vectors, .out = alone.view, .m = 1});
      norm(gpu, {.x = all.data() + 3 * cols, .norm = n.vectors, .out = half.view, .m = 1});
      const auto got = together.values.get();
      const auto from = got.begin() + 3 * cols;
      EXPECT_EQ(bits_of_all({from, from + cols}), bits_of_all(alone.values.get()));
      expect_rounded(half.rounded.get(), alone.values.get(), cols);
      for (const uint16_t bits : alone.rounded.get()) ASSERT_EQ(bits, 0xffff);
    }
  }
}

// ---- add, round_rows

TEST(Add, AddsAndRounds) {
  const Gpu gpu(0);
  for (const int cols : {1, 62, 64, 130, 3000}) {
    SCOPED_TRACE(cols);
    const Matrix x = random_rows(3, cols, 1), sum = random_rows(3, cols, 2);
    const TestArray<float> device_x(gpu, x.values), device_sum(gpu, sum.values);
    const TestRows both(gpu, 3, cols), plain(gpu, 3, cols, true, false);
    add(gpu, device_x.data(), device_sum.data(), both.view, 3);
    add(gpu, device_x.data(), device_sum.data(), plain.view, 3);
    EXPECT_EQ(both.values.get(), ref::add(x, sum).values);
    EXPECT_EQ(plain.values.get(), ref::add(x, sum).values);
    expect_rounded(both.rounded.get(), both.values.get(), cols);
    add(gpu, device_x.data(), device_sum.data(),
        {.values = device_x.data(), .cols = cols, .stride = cols}, 3);
    EXPECT_EQ(device_x.get(), ref::add(x, sum).values);
  }
}

TEST(RoundRows, RoundsWhatIsThere) {
  const Gpu gpu(0);
  for (const auto& [cols, stride] : {std::pair{64, 64}, {61, 61}, {64, 67}, {100, 104}}) {
    Matrix x = random_rows(4, stride, 1);
    const TestArray<float> values(gpu, x.values);
    const TestRows out(gpu, 4, cols, false, true);
    Activations view = out.view;
    view.values = values.data();
    view.stride = stride;
    round_rows(gpu, view, 4);
    std::vector<float> tight;
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < cols; ++c) tight.push_back(x.at(r, c));
    }
    expect_rounded(out.rounded.get(), tight, cols);
    EXPECT_EQ(values.get(), x.values);
  }
}

TEST(RoundRows, ToF16KeepsWhatIsFinite) {
  const Gpu gpu(0);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {1,         65504,      65519.9f, 65520, -7e30f,
                                kInfinity, -kInfinity, 1e-8f,    0.1f};
  const TestArray<float> values(gpu, x);
  const TestRows out(gpu, 1, 9, false, true, DType::kF16);
  Activations view = out.view;
  view.values = values.data();
  round_rows(gpu, view, 1);
  expect_rounded(out.rounded.get(), x, 9, DType::kF16);
}

// ---- activate

// From zero, where erf and tanh are nearly straight, through where they bend, to far beyond where
// both are 1 in f32.
std::vector<float> whole_range() {
  std::vector<float> values = {0, 1e-30f, 1e-10f, 1e4f, 1e15f, 88.5f, 87.3f, 104};
  for (float x = 1e-5f; x < 1; x *= 1.03f) values.push_back(x);
  for (float x = 0.3f; x < 14; x += 0.01f) values.push_back(x);
  const size_t half = values.size();
  for (size_t i = 0; i < half; ++i) values.push_back(-values[i]);
  return values;
}

TEST(Activate, OverTheWholeRange) {
  const Gpu gpu(0);
  const std::vector<float> x = whole_range();
  const auto ups = TestNumbers(5).floats(x.size(), 3);
  for (const int cols : {16, 17, static_cast<int>(x.size() / 2)}) {
    const auto width = static_cast<size_t>(cols);
    const auto rows = static_cast<int>(x.size() / width);
    const auto count = static_cast<size_t>(rows) * width;
    std::vector<float> gated;
    for (size_t r = 0; r < count; r += width) {
      for (size_t c = r; c < r + width; ++c) gated.push_back(x[c]);
      for (size_t c = r; c < r + width; ++c) gated.push_back(ups[c]);
    }
    const TestArray<float> plain_input(gpu, x), gated_input(gpu, gated);
    for (const Act act : {Act::kSilu, Act::kGeluTanh, Act::kGelu}) {
      SCOPED_TRACE(testing::Message() << cols << " columns, activation " << static_cast<int>(act));
      const DType type = cols % 2 ? DType::kF16 : DType::kBF16;
      const TestRows plain(gpu, rows, cols, true, true, type),
          product(gpu, rows, cols, true, true, type);
      activate(gpu, {plain_input.data(), false, act, plain.view, rows});
      activate(gpu, {gated_input.data(), true, act, product.view, rows});
      const auto values = plain.values.get(), products = product.values.get();
      for (size_t i = 0; i < count; ++i) {
        const double want = ref::activate(double{x[i]}, act), up = double{ups[i]};
        // What multiplies x is between 0 and 1, and near those its rounding is one of numbers
        // near 1.
        const double bound = 2 * kTestEpsilon * std::abs(double{x[i]});
        ASSERT_LE(std::abs(double{values[i]} - want), bound) << x[i];
        ASSERT_LE(std::abs(double{products[i]} - want * up),
                  (bound + kTestEpsilon * std::abs(want)) * std::abs(up))
            << x[i] << " times " << up;
      }
      expect_rounded(plain.rounded.get(), values, cols, type);
      expect_rounded(product.rounded.get(), products, cols, type);
    }
  }
}

// ---- resolve_tokens

TEST(ResolveTokens, TakesWhatARowWasSampledAs) {
  const Gpu gpu(0);
  std::vector<SampledRow> sampled(3);
  sampled[0].token = 70;
  sampled[1].token = -1;
  sampled[2].token = 90;
  std::vector<int32_t> ids = {5, -1, -3, 0, -2}, want = {5, 70, 90, 0, 0};
  for (int i = 0; i < 300; ++i) {
    ids.push_back(i % 2 == 0 ? i : -3);
    want.push_back(i % 2 == 0 ? i : 90);
  }
  const TestArray<SampledRow> device_sampled(gpu, sampled);
  const TestArray<int32_t> device_ids(gpu, ids);
  resolve_tokens(gpu, device_ids.data(), static_cast<int32_t>(ids.size()), device_sampled.data());
  EXPECT_EQ(device_ids.get(), want);
}

}  // namespace
}  // namespace llorch::cuda
