// Routes of rows to experts, and their way back, against the plainest form of both.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backends/cuda/kernels.h"
#include "backends/cuda/test_arrays.h"
#include "gtest/gtest.h"
#include "ops/dtype.h"
#include "ops/test_numbers.h"

namespace llorch::cuda {
namespace {

struct Shape {
  int m, count, top_k;
};

struct Routes {
  std::vector<int32_t> start, rows, places;
  std::vector<float> weights;
};

Routes route_on_device(const Gpu& gpu, const std::vector<float>& logits, const Shape& shape,
                       bool renormalize) {
  const auto pairs = static_cast<size_t>(shape.m) * static_cast<size_t>(shape.top_k);
  const TestArray<float> device_logits(gpu, logits);
  const TestArray<int32_t> start(gpu, static_cast<size_t>(shape.count) + 1), rows(gpu, pairs),
      places(gpu, pairs);
  const TestArray<float> weights(gpu, pairs);
  route(gpu, {.logits = device_logits.data(),
              .m = shape.m,
              .count = shape.count,
              .top_k = shape.top_k,
              .renormalize = renormalize,
              .start = start.data(),
              .rows = rows.data(),
              .places = places.data(),
              .weights = weights.data()});
  return {start.get(), rows.get(), places.get(), weights.get()};
}

// The experts of a row, ascending: the highest logits, the lowest index on a tie.
std::vector<int32_t> chosen_of(const float* logits, const Shape& shape) {
  std::vector<int32_t> order(static_cast<size_t>(shape.count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  order.resize(static_cast<size_t>(shape.top_k));
  std::ranges::sort(order);
  return order;
}

int32_t expert_of(const Routes& routes, int32_t place) {
  const auto above = std::ranges::upper_bound(routes.start, place);
  return static_cast<int32_t>(above - routes.start.begin()) - 1;
}

// That product rows are sorted by expert, then row, and that places lead to them.
void expect_sorted(const Routes& routes, const Shape& shape) {
  const auto top_k = static_cast<size_t>(shape.top_k);
  ASSERT_EQ(routes.start[0], 0);
  ASSERT_EQ(routes.start.back(), shape.m * shape.top_k);
  ASSERT_TRUE(std::ranges::is_sorted(routes.start));
  for (int e = 0; e < shape.count; ++e) {
    const auto first = routes.rows.begin() + routes.start[static_cast<size_t>(e)],
               end = routes.rows.begin() + routes.start[static_cast<size_t>(e) + 1];
    ASSERT_TRUE(std::adjacent_find(first, end, std::greater_equal<>()) == end) << "expert " << e;
  }
  for (size_t i = 0; i < routes.places.size(); ++i) {
    const int32_t place = routes.places[i];
    ASSERT_TRUE(place >= 0 && place < shape.m * shape.top_k);
    ASSERT_EQ(routes.rows[static_cast<size_t>(place)], static_cast<int32_t>(i / top_k));
    if (i % top_k == 0) continue;
    ASSERT_LT(expert_of(routes, routes.places[i - 1]), expert_of(routes, place));
  }
}

void expect_routes(const Routes& routes, const std::vector<float>& logits, const Shape& shape,
                   bool renormalize) {
  expect_sorted(routes, shape);
  if (testing::Test::HasFatalFailure()) return;
  for (int r = 0; r < shape.m; ++r) {
    const float* const row = &logits[static_cast<size_t>(r) * static_cast<size_t>(shape.count)];
    const auto chosen = chosen_of(row, shape);
    const double top = double{*std::max_element(row, row + shape.count)};
    double total = 0;
    if (renormalize) {
      for (const int32_t e : chosen) total += std::exp(double{row[e]} - top);
    } else {
      for (int e = 0; e < shape.count; ++e) total += std::exp(double{row[e]} - top);
    }
    for (size_t k = 0; k < chosen.size(); ++k) {
      const size_t at = static_cast<size_t>(r) * chosen.size() + k;
      ASSERT_EQ(expert_of(routes, routes.places[at]), chosen[k]) << "row " << r;
      const double below = double{row[chosen[k]]} - top, want = std::exp(below) / total;
      // The difference is rounded, the exponential is good to two, the rest are sums of
      // positive numbers.
      ASSERT_NEAR(double{routes.weights[at]}, want,
                  want * kTestEpsilon * (8 + std::abs(below)) + 1e-37)
          << "row " << r << ", expert " << chosen[k];
    }
  }
}

constexpr Shape kShapes[] = {
    {1, 1, 1},   {1, 8, 2},    {1, 128, 8},    {2, 60, 4},    {3, 64, 6},    {7, 256, 8},
    {8, 33, 32}, {9, 128, 8},  {31, 16, 1},    {32, 256, 32}, {33, 128, 8},  {100, 2, 2},
    {257, 8, 2}, {300, 60, 5}, {1000, 256, 8}, {40, 32, 32},  {4096, 64, 8}, {4095, 16, 1}};

TEST(Route, SortsRowsByExpert) {
  const Gpu gpu(0);
  for (const Shape& shape : kShapes) {
    const auto numbers = static_cast<size_t>(shape.m) * static_cast<size_t>(shape.count);
    const auto logits = TestNumbers(static_cast<uint32_t>(shape.m)).floats(numbers, 6);
    for (const bool renormalize : {false, true}) {
      SCOPED_TRACE(testing::Message() << shape.m << " rows, " << shape.top_k << " of "
                                      << shape.count << ", renormalised " << renormalize);
      expect_routes(route_on_device(gpu, logits, shape, renormalize), logits, shape, renormalize);
    }
  }
}

TEST(Route, TakesTheLowestExpertOnATie) {
  const Gpu gpu(0);
  TestNumbers numbers(5);
  for (const Shape& shape : {Shape{5, 8, 2}, {64, 60, 4}, {20, 256, 32}}) {
    std::vector<float> logits(static_cast<size_t>(shape.m * shape.count));
    for (float& v : logits) {
      v = static_cast<float>(static_cast<int>(numbers.bits() / 65536 % 3) - 1);
      if (v == 0 && numbers.bits() / 65536 % 2) v = -0.0f;  // as 0
    }
    expect_routes(route_on_device(gpu, logits, shape, true), logits, shape, true);
  }
}

TEST(Route, HotExpertsGetAllRows) {
  const Gpu gpu(0);
  const Shape shape{500, 32, 3};
  std::vector<float> logits(500 * 32, -5);
  for (size_t r = 0; r < 500; ++r) logits[r * 32 + 31] = logits[r * 32] = logits[r * 32 + 7] = 1;
  const Routes routes = route_on_device(gpu, logits, shape, true);
  expect_routes(routes, logits, shape, true);
  EXPECT_EQ(routes.start[1], 500);
  EXPECT_EQ(routes.start[31], 1000);
}

TEST(Route, BearsRowsThatAreNotFinite) {
  const Gpu gpu(0);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  for (const int m : {4, 50}) {
    const Shape shape{m, 40, 5};
    const size_t count = 40;
    auto logits = TestNumbers(3).floats(static_cast<size_t>(m) * count, 4);
    std::fill_n(logits.begin() + 40, 40, kNan);
    for (size_t e = 0; e < count; e += 2) logits[2 * count + e] = e % 4 ? -kNan : kNan;
    logits[3 * count + 7] = kInfinity;
    logits[3 * count + 8] = -kInfinity;
    const Routes routes = route_on_device(gpu, logits, shape, true);
    expect_sorted(routes, shape);
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(expert_of(routes, routes.places[5 + k]), static_cast<int32_t>(k));
    }
    // The others are as ever.
    const Routes alone =
        route_on_device(gpu, {logits.begin(), logits.begin() + 40}, {1, 40, 5}, true);
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(expert_of(routes, routes.places[k]), expert_of(alone, alone.places[k]));
      EXPECT_EQ(routes.weights[k], alone.weights[k]);
    }
  }
}

TEST(Route, GivesARowOneAnswer) {
  const Gpu gpu(0);
  for (const Shape& shape : {Shape{70, 128, 8}, {30, 60, 4}}) {
    const auto count = static_cast<size_t>(shape.count), top_k = static_cast<size_t>(shape.top_k);
    const auto logits = TestNumbers(8).floats(static_cast<size_t>(shape.m) * count, 5);
    for (const bool renormalize : {false, true}) {
      const Routes all = route_on_device(gpu, logits, shape, renormalize);
      for (const size_t row : {size_t{0}, size_t{13}, static_cast<size_t>(shape.m) - 1}) {
        const auto first = logits.begin() + static_cast<std::ptrdiff_t>(row * count);
        const Routes alone = route_on_device(gpu, {first, first + shape.count},
                                             {1, shape.count, shape.top_k}, renormalize);
        for (size_t k = 0; k < top_k; ++k) {
          EXPECT_EQ(expert_of(all, all.places[row * top_k + k]), expert_of(alone, alone.places[k]));
          EXPECT_EQ(all.weights[row * top_k + k], alone.weights[k]);
        }
      }
    }
  }
}

// ---- mix

struct MixCase {
  int m, top_k, cols;
  bool shared, gated;
};

TEST(Mix, AddsWhatExpertsGive) {
  const Gpu gpu(0);
  for (const MixCase& c : {MixCase{1, 1, 64, false, false},
                           {1, 8, 2048, false, false},
                           {5, 2, 100, true, false},
                           {9, 4, 33, true, true},
                           {3, 6, 260, true, true},
                           {70, 3, 7, false, false}}) {
    SCOPED_TRACE(testing::Message() << c.m << " rows, " << c.top_k << " parts, " << c.cols);
    const auto m = static_cast<size_t>(c.m), cols = static_cast<size_t>(c.cols),
               top_k = static_cast<size_t>(c.top_k), pairs = m * top_k;
    const auto parts = TestNumbers(1).floats(pairs * cols, 2),
               weights = TestNumbers(2).floats(pairs), shared = TestNumbers(3).floats(m * cols, 2),
               gates = TestNumbers(4).floats(m, 9);
    std::vector<int32_t> places(pairs);
    for (size_t i = 0; i < pairs; ++i) {
      places[i] =
          static_cast<int32_t>((i * 7 + 3) % pairs);  // not all different: it does not matter
    }
    const TestArray<float> device_parts(gpu, parts), device_weights(gpu, weights),
        device_shared(gpu, shared), device_gates(gpu, gates);
    const TestArray<int32_t> device_places(gpu, places);
    const TestRows out(gpu, c.m, c.cols);
    const MixArgs args{.parts = device_parts.data(),
                       .places = device_places.data(),
                       .weights = device_weights.data(),
                       .shared = c.shared ? device_shared.data() : nullptr,
                       .gates = c.gated ? device_gates.data() : nullptr,
                       .m = c.m,
                       .top_k = c.top_k,
                       .out = out.view};
    mix(gpu, args);
    const auto got = out.values.get();
    const auto rounded = out.rounded.get();
    for (size_t r = 0; r < m; ++r) {
      for (size_t i = 0; i < cols; ++i) {
        double want = 0, size = 0;
        const auto add = [&](double weight, float part) {
          want += weight * double{part};
          size += std::abs(weight * double{part});
        };
        for (size_t k = r * top_k; k < (r + 1) * top_k; ++k) {
          add(double{weights[k]}, parts[static_cast<size_t>(places[k]) * cols + i]);
        }
        const double gate = c.gated ? 1 / (1 + std::exp(-double{gates[r]})) : 1;
        if (c.shared) add(gate, shared[r * cols + i]);
        // One rounding for each of them, of the sum so far; and a few of the gate.
        ASSERT_LE(std::abs(double{got[r * cols + i]} - want), kTestEpsilon * (4 + c.top_k) * size);
      }
      const auto padded = static_cast<size_t>(padded_columns(c.cols));
      for (size_t i = 0; i < padded; ++i) {
        const uint16_t want = i < cols ? bf16_from_f32(got[r * cols + i]) : uint16_t{0};
        ASSERT_EQ(rounded[r * padded + i], want);
      }
    }
    // A row's answer is its own.
    const TestRows last(gpu, 1, c.cols, true, false);
    MixArgs alone = args;
    alone.places += pairs - top_k;
    alone.weights += pairs - top_k;
    if (alone.shared) alone.shared += (m - 1) * cols;
    if (alone.gates) alone.gates += m - 1;
    alone.m = 1;
    alone.out = last.view;
    mix(gpu, alone);
    EXPECT_EQ(bits_of_all(last.values.get()),
              bits_of_all({got.end() - static_cast<std::ptrdiff_t>(cols), got.end()}));
  }
}

}  // namespace
}  // namespace llorch::cuda
