// Row-wise ops: norms, activations, gathering a row of a packed table.
#pragma once

#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

// 1 / sqrt(mean(x^2) + eps). The order of the sum depends on n alone.
HWY_INLINE float inverse_rms(const float* x, float eps, int n) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Vec v = load(x + i + j * kLanes);
      sums[j] = hn::MulAdd(v, v, sums[j]);
    }
  }
  float rest = 0;
  for (; i < n; ++i) rest += x[i] * x[i];
  const float sum = sum_lanes(hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))) + rest;
  return 1 / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
}

HWY_INLINE void scale_by_gain(const float* x, float factor, const float* gain, int n, float* out) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(hn::Mul(hn::Mul(load(x + i), set(factor)), load(gain + i)), out + i);
  }
  for (; i < n; ++i) out[i] = x[i] * factor * gain[i];
}

void norm(const float* a, const float* b, float* sum, const float* gain, float eps, int32_t n,
          float* out) {
  const float* x = a;
  if (b != nullptr) {
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) store(hn::Add(load(a + i), load(b + i)), sum + i);
    for (; i < n; ++i) sum[i] = a[i] + b[i];
    x = sum;
  }
  scale_by_gain(x, inverse_rms(x, eps, n), gain, n, out);
}

HWY_INLINE Vec silu_of(Vec x) { return hn::Div(x, hn::Add(set(1.0f), exp(hn::Neg(x)))); }

HWY_INLINE Vec gelu_tanh_of(Vec x) {
  const Vec cube = hn::Mul(hn::Mul(x, x), x);
  const Vec inner = hn::Mul(set(0.7978845608028654f), hn::MulAdd(set(0.044715f), cube, x));
  return hn::Mul(hn::Mul(set(0.5f), x), hn::Add(set(1.0f), tanh(inner)));
}

template <Vec (*Activate)(Vec)>
HWY_INLINE void activate(float* gate, const float* up, int32_t n) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(hn::Mul(Activate(load(gate + i)), load(up + i)), gate + i);
  }
  if (i == n) return;
  float padded[kLanes] = {};
  for (int j = i; j < n; ++j) padded[j - i] = gate[j];
  store(Activate(load(padded)), padded);
  for (int j = i; j < n; ++j) gate[j] = padded[j - i] * up[j];
}

void silu(float* gate, const float* up, int32_t n) { activate<silu_of>(gate, up, n); }
void gelu_tanh(float* gate, const float* up, int32_t n) { activate<gelu_tanh_of>(gate, up, n); }

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
