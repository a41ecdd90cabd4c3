// Row-wise ops: sums, norms, activations, rounding to int8, gathering a row of a packed table.
#pragma once

#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

void add(const float* a, const float* b, int32_t n, float* out) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) store(hn::Add(load(a + i), load(b + i)), out + i);
  for (; i < n; ++i) out[i] = a[i] + b[i];
}

HWY_INLINE float sum_of(const float* x, int n) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) sums[j] = hn::Add(load(x + i + j * kLanes), sums[j]);
  }
  float rest = 0;
  for (; i < n; ++i) rest += x[i];
  return sum_lanes(hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))) + rest;
}

// Of (x - mean)^2.
HWY_INLINE float sum_of_squares(const float* x, float mean, int n) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Vec v = hn::Sub(load(x + i + j * kLanes), set(mean));
      sums[j] = hn::MulAdd(v, v, sums[j]);
    }
  }
  float rest = 0;
  for (; i < n; ++i) rest += (x[i] - mean) * (x[i] - mean);
  return sum_lanes(hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))) + rest;
}

void norm(const float* x, const RowNorm& norm, int32_t n, float* out) {
  const auto count = static_cast<float>(n);
  const float mean = norm.centred ? sum_of(x, n) / count : 0;
  const float factor = 1 / __builtin_sqrtf(sum_of_squares(x, mean, n) / count + norm.eps);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec scaled = hn::Mul(hn::Sub(load(x + i), set(mean)), set(factor));
    const Vec bias = norm.bias != nullptr ? load(norm.bias + i) : zero();
    store(hn::MulAdd(scaled, load(norm.gain + i), bias), out + i);
  }
  for (; i < n; ++i) {
    const float bias = norm.bias != nullptr ? norm.bias[i] : 0;
    out[i] = (x[i] - mean) * factor * norm.gain[i] + bias;
  }
}

HWY_INLINE Vec silu_of(Vec x) { return hn::Div(x, hn::Add(set(1.0f), exp(hn::Neg(x)))); }

HWY_INLINE Vec gelu_tanh_of(Vec x) {
  const Vec cube = hn::Mul(hn::Mul(x, x), x);
  const Vec inner = hn::Mul(set(0.7978845608028654f), hn::MulAdd(set(0.044715f), cube, x));
  return hn::Mul(hn::Mul(set(0.5f), x), hn::Add(set(1.0f), tanh(inner)));
}

HWY_INLINE Vec gelu_of(Vec x) {
  return hn::Mul(hn::Mul(set(0.5f), x), hn::Add(set(1.0f), erf(hn::Mul(x, set(0.70710678f)))));
}

template <Vec (*Activate)(Vec)>
void activate(float* gate, const float* up, int32_t n) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec value = Activate(load(gate + i));
    store(up != nullptr ? hn::Mul(value, load(up + i)) : value, gate + i);
  }
  if (i == n) return;
  float padded[kLanes] = {};
  for (int j = i; j < n; ++j) padded[j - i] = gate[j];
  store(Activate(load(padded)), padded);
  for (int j = i; j < n; ++j) gate[j] = up != nullptr ? padded[j - i] * up[j] : padded[j - i];
}

void add_scaled(const float* x, float factor, int32_t n, float* sum) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(hn::MulAdd(set(factor), load(x + i), load(sum + i)), sum + i);
  }
  for (; i < n; ++i) sum[i] += factor * x[i];
}

float dot(const float* a, const float* b, int32_t n) {
  Vec sums = zero();
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) sums = hn::MulAdd(load(a + i), load(b + i), sums);
  float rest = 0;
  for (; i < n; ++i) rest += a[i] * b[i];
  return sum_lanes(sums) + rest;
}

// Highest magnitude of a block as an integer, which orders NaNs above infinity.
HWY_INLINE int32_t highest_bits(const float* x) {
  hn::Vec<I32> top = hn::Zero(I32());
  for (int i = 0; i < kBlockColumns; i += kLanes) {
    top = hn::Max(top, hn::BitCast(I32(), hn::Abs(load(x + i))));
  }
  return hn::GetLane(hn::MaxOfLanes(I32(), top));
}

// To the nearest of 255 steps, ties to even. What is not finite makes the scale a NaN, which no
// product loses.
void quantise_row(const float* x, int32_t row, int32_t cols, const QuantisedRows& rows) {
  constexpr int32_t kInfinity = 0x7f800000;
  constexpr float kSmallest = 1e-30f;  // less than this is zero
  for (int64_t b = 0; b < cols / kBlockColumns; ++b, x += kBlockColumns) {
    const int64_t at = (row / kRowTile * rows.block_count + b) * rows.tile_rows + row % kRowTile;
    const int32_t bits = highest_bits(x);
    float top;
    __builtin_memcpy(&top, &bits, sizeof top);
    const bool finite = bits < kInfinity;
    const float factor = finite && top >= kSmallest ? 127 / top : 0;
    hn::Vec<I32> sums[2] = {hn::Zero(I32()), hn::Zero(I32())};
    for (int i = 0; i < kBlockColumns; i += kLanes) {
      const Vec scaled = finite ? hn::Mul(load(x + i), set(factor)) : zero();
      const hn::Vec<I32> value = hn::NearestInt(scaled);
      // A vector of 16 or fewer lanes lies in one half.
      sums[i / (kBlockColumns / 2)] = hn::Add(sums[i / (kBlockColumns / 2)], value);
      const hn::Rebind<int8_t, I32> narrow;
      hn::StoreU(hn::DemoteTo(narrow, value), narrow, rows.values + at * kBlockColumns + i);
    }
    const int32_t low = hn::GetLane(hn::SumOfLanes(I32(), sums[0]));
    const int32_t all = low + hn::GetLane(hn::SumOfLanes(I32(), sums[1]));
    const float scale = factor > 0 ? top / 127 : finite ? 0 : __builtin_nanf("");
    rows.blocks[at] = {scale, scale * static_cast<float>(all), -all, -low};
  }
}

template <class Stored>
void embed(const PanelWeight& table, int32_t row, float scale, float* out) {
  const auto* column = reinterpret_cast<const typename Stored::Element*>(
                           table.panels + row / kPanelRows * table.panel_bytes) +
                       panel_index<Stored>(row % kPanelRows);
  for (int64_t k = 0; k < table.cols; ++k) {
    out[k] = Stored::to_f32(column[k * kPanelRows]) * scale;
  }
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
