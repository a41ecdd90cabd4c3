#include <numeric>
#include <tuple>

#include "backends/cuda/kernels.h"
#include "backends/cuda/product_test_rig.h"

namespace llorch::cuda {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

// Rows of weights such that a multiprocessor has about so many warps of 16; ragged.
int32_t rows_for(const Gpu& gpu, int warps) {
  return gpu.facts().multiprocessors * warps * 16 + 13;
}

// Rows for just as many tiles of 128 as there are multiprocessors.
int32_t full_rows(const Gpu& gpu) { return gpu.facts().multiprocessors * 128 - 7; }

std::vector<float> random_bias(int32_t rows, uint32_t seed) {
  return TestNumbers(seed).floats(static_cast<size_t>(rows));
}

void check(const Gpu& gpu, DType type, int32_t rows, int32_t cols, int32_t m, bool with_bias) {
  SCOPED_TRACE(testing::Message() << name(type) << " [" << rows << ", " << cols << "], m " << m);
  const DeviceWeight w(gpu, random_matrix(rows, cols, 1), type,
                       with_bias ? random_bias(rows, 2) : std::vector<float>());
  const DeviceRows x(gpu, random_matrix(m, cols, 3));
  const Matrix got = product_of(gpu, {.w = w.rows, .x = x.rows(type), .m = m});
  expect_product(got, x.taken(type), w.values, w.bias);
}

// Columns: less than a step of 64, half stages, more stages than a ring has.
TEST(CudaProduct, EveryTypeOverRaggedShapes) {
  const Gpu gpu(0);
  for (const DType type : kTypes) {
    for (const auto& [rows, cols] : {std::pair{1, 1}, {5, 33}, {37, 64}, {40, 200}, {23, 1100}}) {
      for (const int m : {1, 2, 9, 33}) check(gpu, type, rows, cols, m, m % 2 == 0);
    }
  }
}

TEST(CudaProduct, EveryTileForFewTokens) {
  const Gpu gpu(0);
  for (const DType type : kTypes) {
    for (const int warps : {1, 2, 5}) {
      for (const int m : {1, 7, 8, 9, 16}) check(gpu, type, rows_for(gpu, warps), 136, m, true);
      check(gpu, type, rows_for(gpu, warps), 136, 30, false);
    }
  }
}

TEST(CudaProduct, EveryTileForManyTokens) {
  const Gpu gpu(0);
  for (const DType type : kTypes) {
    for (const int m : {33, 64, 65, 128, 130, 300}) check(gpu, type, 70, 200, m, m % 2 == 0);
    for (const int m : {50, 150, 300}) check(gpu, type, full_rows(gpu), 72, m, true);
  }
  for (const int m : {150, 300}) check(gpu, DType::kBF16, full_rows(gpu), 330, m, false);
}

// Many token tiles, so that blocks are put in groups.
TEST(CudaProduct, MoreTokenTilesThanAreTogether) {
  const Gpu gpu(0);
  check(gpu, DType::kBF16, 130, 64, 128 * 17 + 1, false);
  check(gpu, DType::kF32, 70, 32, 64 * 17 + 1, false);
}

TEST(CudaProduct, F32IsFmafInOrder) {
  const Gpu gpu(0);
  for (const int m : {1, 5, 40}) {
    const DeviceWeight w(gpu, random_matrix(45, 77, 1), DType::kF32);
    const DeviceRows x(gpu, random_matrix(m, 77, 2));
    const Matrix got = product_of(gpu, {.w = w.rows, .x = x.rows(DType::kF32), .m = m});
    for (int r = 0; r < m; ++r) {
      for (int n = 0; n < 45; ++n) {
        float sum = 0;
        for (int c = 0; c < 77; ++c) sum = std::fmaf(x.values.at(r, c), w.values.at(n, c), sum);
        ASSERT_EQ(got.at(r, n), sum) << "row " << r << ", column " << n;
      }
    }
  }
}

// Each f16, subnormals too, times 1 is itself.
TEST(CudaProduct, F16IsExact) {
  const Gpu gpu(0);
  constexpr int kRows = 0x7c00 / 64;
  Matrix all(kRows, 64);
  for (size_t i = 0; i < all.values.size(); ++i) {
    all.values[i] = f32_from_f16(static_cast<uint16_t>(i)) * (i % 2 ? -1.0f : 1.0f);
  }
  const DeviceWeight w(gpu, all, DType::kF16);
  Matrix ones(64, 64);
  for (int i = 0; i < 64; ++i) ones.at(i, i) = 1;
  const DeviceRows x(gpu, ones);
  const Matrix got = product_of(gpu, {.w = w.rows, .x = x.rows(DType::kF16), .m = 64});
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < 64; ++c) ASSERT_EQ(got.at(c, r), all.at(r, c)) << "f16 " << r * 64 + c;
  }
}

TEST(CudaProduct, GatheredRowsAndSoftcap) {
  const Gpu gpu(0);
  const std::vector<int32_t> rows = {3, 0, 19, 19, 7};
  for (const DType type : kTypes) {
    const DeviceWeight w(gpu, random_matrix(50, 90, 1), type, random_bias(50, 5));
    const DeviceRows x(gpu, random_matrix(20, 90, 2));
    const DeviceMemory device_rows = uploaded(gpu, rows);
    ProductArgs args{.w = w.rows, .x = x.rows(type), .rows = device_rows.as<int32_t>(), .m = 5};
    const Matrix plain = product_of(gpu, args);
    expect_product(plain, chosen_rows(x.taken(type), rows), w.values, w.bias);
    args.softcap = 2.5f;
    const Matrix capped = product_of(gpu, args);
    for (size_t i = 0; i < capped.values.size(); ++i) {
      const double want = 2.5 * std::tanh(double{plain.values[i]} / 2.5);
      ASSERT_NEAR(capped.values[i], want, 1e-6 * std::abs(want) + 1e-30);
    }
  }
}

// A row alone, among others and in other places: whichever kernel does it, the same bits.
TEST(CudaProduct, OneAnswer) {
  const Gpu gpu(0);
  constexpr int kRows = 300;
  for (const DType type : kTypes) {
    for (const auto& [rows, cols] : {std::pair{70, 200}, {full_rows(gpu), 72}}) {
      const DeviceWeight w(gpu, random_matrix(rows, cols, 1), type, random_bias(rows, 5));
      const DeviceRows x(gpu, random_matrix(kRows, cols, 2));
      const Matrix all = product_of(gpu, {.w = w.rows, .x = x.rows(type), .m = kRows});
      for (const int m : {5, 64, 140}) {
        std::vector<int32_t> first(static_cast<size_t>(m));
        std::iota(first.begin(), first.end(), 0);
        expect_same_bits(product_of(gpu, {.w = w.rows, .x = x.rows(type), .m = m}),
                         chosen_rows(all, first));
      }
      for (const int m : {1, 3, 8, 13, 20, 50, 100}) {
        std::vector<int32_t> chosen(static_cast<size_t>(m));
        for (int i = 0; i < m; ++i) chosen[static_cast<size_t>(i)] = (i * 89 + 200) % kRows;
        const DeviceMemory device_rows = uploaded(gpu, chosen);
        SCOPED_TRACE(testing::Message()
                     << name(type) << " [" << rows << ", " << cols << "], " << m);
        expect_same_bits(
            product_of(gpu,
                       {.w = w.rows, .x = x.rows(type), .rows = device_rows.as<int32_t>(), .m = m}),
            chosen_rows(all, chosen));
      }
    }
  }
}

// Experts of one shape, of which `counts` say how many product rows each has.
void check_experts(const Gpu& gpu, DType type, const std::vector<int32_t>& counts, int32_t rows,
                   int32_t cols) {
  SCOPED_TRACE(testing::Message() << name(type) << ", experts of [" << rows << ", " << cols << "]");
  const int32_t m = std::accumulate(counts.begin(), counts.end(), 0);
  const DeviceRows x(gpu, random_matrix(25, cols, 3));
  std::vector<int32_t> sources, start = {0};
  for (int i = 0; i < m; ++i) sources.push_back((i * 11 + 4) % 25);
  std::vector<std::unique_ptr<DeviceWeight>> experts;
  std::vector<WeightRows> weights;
  for (size_t e = 0; e < counts.size(); ++e) {
    start.push_back(start.back() + counts[e]);
    const auto seed = static_cast<uint32_t>(e) + 10;
    experts.push_back(std::make_unique<DeviceWeight>(gpu, random_matrix(rows, cols, seed), type,
                                                     random_bias(rows, seed)));
    weights.push_back(experts.back()->rows);
  }
  const DeviceMemory device_sources = uploaded(gpu, sources), device_start = uploaded(gpu, start),
                     device_weights = uploaded(gpu, weights);
  const ProductArgs args{.w = {.rows = rows, .cols = cols, .type = type},
                         .x = x.rows(type),
                         .rows = device_sources.as<int32_t>(),
                         .m = m,
                         .experts = {.weights = device_weights.as<WeightRows>(),
                                     .start = device_start.as<int32_t>(),
                                     .count = static_cast<int32_t>(counts.size())}};
  const Matrix got = product_of(gpu, args);
  for (size_t e = 0; e < counts.size(); ++e) {
    if (counts[e] == 0) continue;
    std::vector<int32_t> of_expert(static_cast<size_t>(counts[e]));
    std::iota(of_expert.begin(), of_expert.end(), start[e]);
    std::vector<int32_t> its_sources;
    for (const int32_t i : of_expert) its_sources.push_back(sources[static_cast<size_t>(i)]);
    const Matrix part = chosen_rows(got, of_expert);
    expect_product(part, chosen_rows(x.taken(type), its_sources), experts[e]->values,
                   experts[e]->bias);
    // The same as without a mixture.
    const DeviceMemory device_rows = uploaded(gpu, its_sources);
    expect_same_bits(part, product_of(gpu, {.w = experts[e]->rows,
                                            .x = x.rows(type),
                                            .rows = device_rows.as<int32_t>(),
                                            .m = counts[e]}));
  }
}

TEST(CudaProduct, Experts) {
  const Gpu gpu(0);
  for (const DType type : kTypes) {
    check_experts(gpu, type, {9, 0, 0, 23, 0, 2, 0, 0}, 40, 70);  // more than a tile for one
    check_experts(gpu, type, {0, 40, 0}, 70, 64);
    check_experts(gpu, type, {100, 20}, 70, 64);
    check_experts(gpu, type, {0, 0, 150, 1}, rows_for(gpu, 3), 64);
    check_experts(gpu, type, {0, 1, 0, 0, 1, 0, 0, 0}, 40, 130);
    std::vector<int32_t> many(1100);  // most of them have no tokens
    for (const size_t e : {3, 31, 32, 1023, 1024, 1099}) many[e] = static_cast<int32_t>(e % 3 + 1);
    check_experts(gpu, type, many, 17, 64);
    many.assign(100, 0);  // so many that a block does several tiles
    many[3] = 140;
    many[99] = 1;
    check_experts(gpu, type, many, rows_for(gpu, 2), 64);
  }
}

TEST(CudaProduct, NothingToDo) {
  const Gpu gpu(0);
  const DeviceWeight w(gpu, random_matrix(4, 4, 1), DType::kBF16);
  product(gpu, {.w = w.rows, .m = 0});
  gpu.synchronize();
}

}  // namespace
}  // namespace llorch::cuda
