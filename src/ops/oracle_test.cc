// The oracle against the reference ops, and its bounds against devices that are made up: what
// rounds as a device does stays within them.
#include "ops/oracle.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "ops/dtype.h"
#include "ops/test_numbers.h"

namespace llorch {

template <>
struct Handle<WeightTag>::Impl {};

namespace {

using ref::Matrix;

constexpr BackendInfo kExact{.name = "exact"};
constexpr BackendInfo kNarrow{.name = "narrow",
                              .beside_bf16 = DType::kBF16,
                              .beside_f16 = DType::kF16,
                              .beside_quantised = DType::kQ8_0};

Matrix random_matrix(int rows, int cols, uint32_t seed, double scale = 1) {
  Matrix m(rows, cols);
  m.values = TestNumbers(seed).floats(m.values.size(), scale);
  return m;
}

// Weights without a device, of rows that are said to be of a type.
struct Made {
  Weight add(std::vector<std::pair<Matrix, DType>> parts, std::vector<float> bias = {}) {
    WeightSource source{.shape = {0, parts[0].first.cols}, .bias = std::move(bias)};
    for (const auto& part : parts) {
      const Matrix& values = part.first;
      source.shape.rows += values.rows;
      source.rows.push_back(
          {values.rows, part.second, [values = values](int32_t row, std::span<float> out) {
             const auto from = values.values.begin() + row * values.cols;
             std::copy_n(from, values.cols, out.begin());
           }});
    }
    Weight weight{std::make_shared<Weight::Impl>(), source.shape, parts[0].second};
    kept.push_back(weight);
    sources.emplace(weight.impl.get(), std::move(source));
    return weight;
  }
  WeightSources sources;
  std::vector<Weight> kept;
};

Matrix as(Matrix m, DType type) {
  for (float& v : m.values) v = rounded(v, type);
  return m;
}

void expect_within(const Matrix& got, const Expected& want) {
  for (size_t i = 0; i < got.values.size(); ++i) {
    ASSERT_LE(std::abs(got.values[i] - want.values.values[i]), want.allowed.values[i]) << i;
  }
}

// A product in f32, one column after the other.
Matrix f32_product(const Matrix& x, const Matrix& w) {
  Matrix out(x.rows, w.rows);
  for (int r = 0; r < x.rows; ++r) {
    for (int c = 0; c < w.rows; ++c) {
      float sum = 0;
      for (int k = 0; k < x.cols; ++k) sum += x.at(r, k) * w.at(c, k);
      out.at(r, c) = sum;
    }
  }
  return out;
}

double largest(const Matrix& m) {
  double most = 0;
  for (const float v : m.values) most = std::max(most, std::abs(double{v}));
  return most;
}

TEST(Oracle, LinearStacksPartsAndRoundsXForEach) {
  Made made;
  const Matrix a = random_matrix(70, 96, 1), b = random_matrix(5, 96, 2),
               c = random_matrix(33, 96, 3), x = random_matrix(11, 96, 4);
  const auto bias = TestNumbers(5).floats(108);
  const Weight w = made.add({{a, DType::kF32}, {b, DType::kBF16}, {c, DType::kQ4_0}}, bias);
  const Oracle oracle(made.sources, kNarrow);
  const ExpectedProduct got = oracle.linear({x, {}}, w);
  EXPECT_EQ(got.carried.rows, 0);
  const Matrix wants[] = {ref::linear(x, a), ref::linear(as(x, DType::kBF16), b),
                          ref::linear(ref::rounded_to_int8(x), c)};
  for (int r = 0; r < x.rows; ++r) {
    for (int i = 0; i < 108; ++i) {
      const float product = i < 70   ? wants[0].at(r, i)
                            : i < 75 ? wants[1].at(r, i - 70)
                                     : wants[2].at(r, i - 75);
      ASSERT_NEAR(got.values.at(r, i), product + bias[static_cast<size_t>(i)], 1e-5);
    }
  }
  EXPECT_LT(largest(got.allowed), 1e-3);
  const std::vector<int32_t> tokens = {3, 72, 80};
  const Expected logits = oracle.logits(x, w, tokens, 0);
  for (int r = 0; r < x.rows; ++r) {
    for (int i = 0; i < 3; ++i) {
      ASSERT_EQ(logits.values.at(r, i), got.values.at(r, tokens[static_cast<size_t>(i)]));
    }
  }
}

TEST(Oracle, EmbedFindsTheRowsOfEachPart) {
  Made made;
  const Matrix a = random_matrix(7, 10, 1), b = random_matrix(6, 10, 2);
  const Weight table = made.add({{a, DType::kF32}, {b, DType::kBF16}});
  const Oracle oracle(made.sources, kExact);
  const std::vector<int32_t> tokens = {6, 7, 0, 12};
  const Expected got = oracle.embed(tokens, table, 2);
  for (int c = 0; c < 10; ++c) {
    EXPECT_EQ(got.values.at(0, c), 2 * a.at(6, c));
    EXPECT_EQ(got.values.at(1, c), 2 * b.at(0, c));
    EXPECT_EQ(got.values.at(3, c), 2 * b.at(5, c));
  }
}

TEST(Oracle, BoundsSumsInF32) {
  for (const int cols : {1, 33, 500, 4000}) {
    Made made;
    const Matrix w = random_matrix(40, cols, 6);
    Matrix x = random_matrix(8, cols, 7);
    for (int c = 0; c < cols; ++c) x.at(3, c) = 1;  // partial sums as large as they get
    x.at(5, cols / 2) = 1000;
    const Weight weight = made.add({{w, DType::kF32}});
    const ExpectedProduct want = Oracle(made.sources, kExact).linear({x, {}}, weight);
    expect_within(f32_product(x, w), want);
  }
}

// An element so near the edge between two steps that its error decides.
TEST(Oracle, CarriesAnErrorOverTheEdgeOfARounding) {
  Made made;
  Matrix ones(1, 64);
  for (float& v : ones.values) v = 1;
  Matrix two(2, 64);
  for (float& v : two.values) v = 1;
  const Weight bf16 = made.add({{two, DType::kBF16}}), q8 = made.add({{two, DType::kQ8_0}});
  const Oracle oracle(made.sources, kNarrow);
  Expected x{ones, Matrix(1, 64)};
  for (float& v : x.allowed.values) v = 1e-4f;
  EXPECT_EQ(oracle.linear(x, bf16).carried.at(0, 0), 0);  // 1 is far from its edges
  x.values.at(0, 5) = 1 + 0x1p-8f;                        // halfway to the next
  EXPECT_FLOAT_EQ(oracle.linear(x, bf16).carried.at(0, 1), 0x1p-7f);
  x.values.at(0, 5) = 20.5f / 127;
  EXPECT_NEAR(oracle.linear(x, q8).carried.at(0, 0), 1.0 / 127, 1e-3);
}

// The device's hidden values differ in their last bits, and so here and there in a whole step.
TEST(Oracle, BoundsAnMlpThatRoundsBetweenItsProducts) {
  for (const auto& [type, act] : {std::pair{DType::kBF16, Act::kSilu},
                                  {DType::kF16, Act::kGelu},
                                  {DType::kF32, Act::kSilu}}) {
    Made made;
    const int cols = 256, ffn = 512;
    const Matrix up = random_matrix(2 * ffn, cols, 8), down = random_matrix(cols, ffn, 9),
                 x = random_matrix(8, cols, 10);
    const Weight up_weight = made.add({{up, type}}), down_weight = made.add({{down, type}});
    const Oracle oracle(made.sources, kNarrow);
    const Expected hidden = oracle.activate(oracle.linear({x, {}}, up_weight), act, true);
    const Expected want = oracle.linear(hidden, down_weight).whole();
    const Matrix both = f32_product(as(x, type), up);
    Matrix made_up(8, ffn);
    for (int r = 0; r < 8; ++r) {
      for (int c = 0; c < ffn; ++c) {
        const auto gate = static_cast<float>(ref::activate(both.at(r, c), act));
        made_up.at(r, c) = gate * both.at(r, c + ffn);
      }
    }
    expect_within(f32_product(as(made_up, type), down), want);
    EXPECT_LT(largest(want.allowed), 0.05 * largest(want.values));
  }
}

// q, k, v and the weights of the values in bf16.
void check_rounded_attention(const Rope* rope) {
  constexpr int kRows = 8, kHeads = 4, kDims = 64;
  const Made made;
  const Attention a{
      .heads = kHeads, .kv_heads = 2, .head_dim = kDims, .scale = 0.125f, .rope = rope};
  const Matrix qkv = random_matrix(kRows, (kHeads + 4) * kDims, 11, 2);
  const std::vector<int32_t> rope_len(kRows, kRows);
  const Expected want = Oracle(made.sources, kNarrow).attention(qkv, a, rope_len, DType::kBF16);
  Matrix got(kRows, kHeads * kDims);
  const auto head = [&](int row, int index, bool turned) {
    std::vector<float> out(kDims);
    for (int d = 0; d < kDims; ++d) out[static_cast<size_t>(d)] = qkv.at(row, index * kDims + d);
    if (turned && rope) ref::rope(out, *rope, row, kRows);
    for (float& v : out) v = rounded(v, DType::kBF16);
    return out;
  };
  for (int r = 0; r < kRows; ++r) {
    for (int h = 0; h < kHeads; ++h) {
      const auto q = head(r, h, true);
      float total = 0;
      for (int j = 0; j <= r; ++j) {
        const auto k = head(j, kHeads + h / 2, true), v = head(j, kHeads + 2 + h / 2, false);
        float score = 0;
        for (size_t d = 0; d < kDims; ++d) score += q[d] * k[d];
        const float weight = std::exp(score * a.scale);
        total += weight;
        for (int d = 0; d < kDims; ++d) {
          got.at(r, h * kDims + d) += rounded(weight, DType::kBF16) * v[static_cast<size_t>(d)];
        }
      }
      for (int d = 0; d < kDims; ++d) got.at(r, h * kDims + d) /= total;
    }
  }
  expect_within(got, want);
  EXPECT_LT(largest(want.allowed), 0.1 * largest(want.values));
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    const Expected exact = Oracle(made.sources, kExact).attention(qkv, a, rope_len, type);
    EXPECT_LT(largest(exact.allowed), (type == DType::kF32 ? 2e-4 : 0.02) * largest(exact.values));
  }
}

TEST(Oracle, BoundsAttentionThatRoundsItsInputs) {
  Rope rope{.dims = 64};
  for (int i = 0; i < 32; ++i) rope.inv_freq.push_back(1 / (1 + static_cast<float>(i)));
  check_rounded_attention(nullptr);
  check_rounded_attention(&rope);
}

TEST(Oracle, KnowsTheCoarsestRounding) {
  Made made;
  made.add({{random_matrix(2, 32, 1), DType::kF32}, {random_matrix(2, 32, 2), DType::kQ8_0}});
  EXPECT_LT(Oracle(made.sources, kExact).unit(DType::kF32), 1e-5);
  EXPECT_EQ(Oracle(made.sources, kExact).unit(DType::kBF16), 0x1p-8);
  EXPECT_EQ(Oracle(made.sources, kNarrow).unit(DType::kF32), 0x1p-7);
}

}  // namespace
}  // namespace llorch
