// Vector helpers of the kernel sources; included once per instruction set, inside its own unit.
// Raw pointers only: see kernels.h.
#pragma once

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "backends/cpu/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using U32 = hn::ScalableTag<uint32_t>;
using I32 = hn::ScalableTag<int32_t>;
using Vec = hn::Vec<F32>;

constexpr int kLanes = static_cast<int>(HWY_LANES(float));
// Vectors per panel: as many sums as the registers hold, for kMaxRows rows at once.
constexpr int kPanelVectors = HWY_ARCH_ARM ? 4 : 2;
constexpr int kPanelRows = kLanes * kPanelVectors;
constexpr int kMaxRows = 6;

HWY_INLINE Vec zero() { return hn::Zero(F32()); }
HWY_INLINE Vec set(float x) { return hn::Set(F32(), x); }
HWY_INLINE Vec load(const float* p) { return hn::LoadU(F32(), p); }
HWY_INLINE void store(Vec v, float* p) { hn::StoreU(v, F32(), p); }

HWY_INLINE int min_of(int a, int b) { return a < b ? a : b; }
HWY_INLINE int max_of(int a, int b) { return a > b ? a : b; }

// The stored types. load_row() reads kLanes elements that lie in order; load_panel() reads one
// column of a panel, whose 16-bit rows are interleaved in pairs of vectors where that is cheaper.
struct StoredF32 {
  using Element = float;
  static HWY_INLINE Vec load_row(const Element* p) { return load(p); }
  static HWY_INLINE void load_panel(const Element* p, Vec (&out)[kPanelVectors]) {
    for (int v = 0; v < kPanelVectors; ++v) out[v] = load(p + v * kLanes);
  }
  static HWY_INLINE float to_f32(Element x) { return x; }
  static HWY_INLINE void store_row(Vec v, Element* p) { store(v, p); }
};

// Highway's own conversions where the instruction set has them; else they are exact here and not
// there (it drops subnormals and infinities).
constexpr bool kHasF16 = HWY_ARCH_ARM || HWY_TARGET <= HWY_AVX2;

struct StoredF16 {
  using Element = uint16_t;
  using Half = hn::Rebind<hwy::float16_t, F32>;
  static HWY_INLINE Vec load_row(const Element* p) {
    const hn::Rebind<uint16_t, F32> half;
    const auto narrow = hn::LoadU(half, p);
    if constexpr (kHasF16) {
      return hn::PromoteTo(F32(), hn::BitCast(Half(), narrow));
    } else {
      const auto bits = hn::PromoteTo(U32(), narrow);
      const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(U32(), 0x7fff)));
      // Moves the exponent's bias, subnormals included.
      const Vec value = hn::Mul(hn::BitCast(F32(), magnitude), set(0x1p112f));
      const auto special =
          hn::IfThenElseZero(hn::Gt(hn::BitCast(I32(), magnitude), hn::Set(I32(), 0x0f7fffff)),
                             hn::Set(I32(), 0x7f800000));
      const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(U32(), 0x8000)));
      return hn::BitCast(
          F32(), hn::Or(hn::Or(hn::BitCast(U32(), value), sign), hn::BitCast(U32(), special)));
    }
  }
  static HWY_INLINE void load_panel(const Element* p, Vec (&out)[kPanelVectors]) {
    for (int v = 0; v < kPanelVectors; ++v) out[v] = load_row(p + v * kLanes);
  }
  static HWY_INLINE float to_f32(Element x) {
    const uint32_t magnitude = (uint32_t{x} & 0x7fffu) << 13;
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    float value;
    __builtin_memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    bits |= special | (uint32_t{x} & 0x8000u) << 16;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
  static HWY_INLINE void store_row(Vec v, Element* p) {
    if constexpr (kHasF16) {
      const hn::Rebind<uint16_t, F32> half;
      hn::StoreU(hn::BitCast(half, hn::DemoteTo(Half(), v)), half, p);
    } else {
      float values[kLanes];
      store(v, values);
      for (int i = 0; i < kLanes; ++i) p[i] = from_f32(values[i]);
    }
  }
  // To the nearest, ties to even.
  static HWY_INLINE Element from_f32(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return static_cast<Element>(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return static_cast<Element>(sign | 0x7c00u);
    if (bits < 0x38800000u) {  // in steps of 2^-24, which are those of a float near 0.5
      float magnitude;
      __builtin_memcpy(&magnitude, &bits, sizeof magnitude);
      magnitude += 0.5f;
      __builtin_memcpy(&bits, &magnitude, sizeof bits);
      return static_cast<Element>(sign | (bits - 0x3f000000u));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return static_cast<Element>(sign | ((bits - 0x38000000u) >> 13));
  }
};

struct StoredBF16 {
  using Element = uint16_t;
  static HWY_INLINE Vec load_row(const Element* p) {
    const hn::Rebind<uint16_t, F32> bits;
    return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(bits, p))));
  }
  static HWY_INLINE void load_panel(const Element* p, Vec (&out)[kPanelVectors]) {
    for (int v = 0; v < kPanelVectors; v += 2) {
      const auto pair = hn::LoadU(U32(), reinterpret_cast<const uint32_t*>(p + v * kLanes));
      out[v] = hn::BitCast(F32(), hn::ShiftLeft<16>(pair));
      out[v + 1] = hn::BitCast(F32(), hn::And(pair, hn::Set(U32(), 0xffff0000u)));
    }
  }
  static HWY_INLINE float to_f32(Element x) {
    const uint32_t bits = uint32_t{x} << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
  // To the nearest, ties to even; a NaN stays one.
  static HWY_INLINE void store_row(Vec v, Element* p) {
    const auto bits = hn::BitCast(U32(), v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(U32(), 1));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(U32(), 0x7fff)));
    const auto quiet = hn::Or(bits, hn::Set(U32(), 0x400000));
    const auto is_nan = hn::RebindMask(U32(), hn::IsNaN(v));
    const auto top = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
    const hn::Rebind<uint16_t, F32> half;
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(I32(), top)), half, p);
  }
};

// The element of a panel's column that row `row` of the panel is. Matches load_panel().
template <class Stored>
HWY_INLINE int panel_index(int row);
template <>
HWY_INLINE int panel_index<StoredF32>(int row) {
  return row;
}
template <>
HWY_INLINE int panel_index<StoredF16>(int row) {
  return row;
}
template <>
HWY_INLINE int panel_index<StoredBF16>(int row) {
  const int pair = row / (2 * kLanes), within = row % (2 * kLanes);
  return pair * 2 * kLanes + (within < kLanes ? 2 * within : 2 * (within - kLanes) + 1);
}

// e^x within 2 ulp; below -87 it stays at e^-87, above 88 at e^88. A NaN stays one: Max and Min of
// x86 give their second argument if either is a NaN.
HWY_INLINE Vec exp(Vec x) {
  x = hn::Min(set(88.0f), hn::Max(set(-87.0f), x));
  const auto n = hn::NearestInt(hn::Mul(x, set(0x1.715476p+0f)));
  const Vec nf = hn::ConvertTo(F32(), n);
  // ln 2 in two parts, the first short enough that n times it is exact.
  Vec r = hn::NegMulAdd(nf, set(0x1.62e4p-1f), x);
  r = hn::NegMulAdd(nf, set(0x1.7f7d1cp-20f), r);
  // Taylor: |r| <= ln 2 / 2 leaves r^8 / 8! < 6e-9.
  Vec sum = set(1.0f / 5040);
  sum = hn::MulAdd(sum, r, set(1.0f / 720));
  sum = hn::MulAdd(sum, r, set(1.0f / 120));
  sum = hn::MulAdd(sum, r, set(1.0f / 24));
  sum = hn::MulAdd(sum, r, set(1.0f / 6));
  sum = hn::MulAdd(sum, r, set(0.5f));
  sum = hn::MulAdd(sum, r, set(1.0f));
  sum = hn::MulAdd(sum, r, set(1.0f));
  const auto power = hn::ShiftLeft<23>(hn::Add(n, hn::Set(I32(), 127)));
  return hn::Mul(sum, hn::BitCast(F32(), power));
}

// Within some ulp: below 1/2 an odd polynomial, fitted for the least relative error.
HWY_INLINE Vec tanh(Vec x) {
  const Vec one = set(1.0f), size = hn::Abs(x), square = hn::Mul(x, x);
  Vec small = set(-0.006613427f);
  small = hn::MulAdd(small, square, set(0.021274708f));
  small = hn::MulAdd(small, square, set(-0.053893417f));
  small = hn::MulAdd(small, square, set(0.13332902f));
  small = hn::MulAdd(small, square, set(-0.33333325f));
  small = hn::MulAdd(hn::Mul(small, square), x, x);
  const Vec e = exp(hn::Mul(set(-2.0f), size));
  const Vec large = hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), x);
  return hn::IfThenElse(hn::Lt(size, set(0.5f)), small, large);
}

// Within some ulp. Below 1 an odd polynomial; above, 1 - exp(a polynomial that is ln erfc); both
// fitted for the least relative error. From 4 on it is 1.
HWY_INLINE Vec erf(Vec x) {
  const Vec square = hn::Mul(x, x);
  Vec small = set(7.853855e-05f);
  small = hn::MulAdd(small, square, set(-0.0008010192f));
  small = hn::MulAdd(small, square, set(0.0051883273f));
  small = hn::MulAdd(small, square, set(-0.026853811f));
  small = hn::MulAdd(small, square, set(0.11283585f));
  small = hn::MulAdd(small, square, set(-0.37612626f));
  small = hn::Mul(hn::MulAdd(small, square, set(1.1283791f)), x);
  const Vec size = hn::Min(set(4.0f), hn::Abs(x));  // in this order a NaN stays one
  Vec large = set(0.00018638009f);
  large = hn::MulAdd(large, size, set(-0.0029476667f));
  large = hn::MulAdd(large, size, set(0.021838096f));
  large = hn::MulAdd(large, size, set(-0.10310682f));
  large = hn::MulAdd(large, size, set(-0.63814473f));
  large = hn::MulAdd(large, size, set(-1.1270893f));
  large = hn::MulAdd(large, size, set(-0.00034151258f));
  large = hn::CopySign(hn::Sub(set(1.0f), exp(large)), x);
  return hn::IfThenElse(hn::Lt(size, set(1.0f)), small, large);
}

HWY_INLINE Vec soft_capped(Vec x, float cap) {
  return hn::Mul(set(cap), tanh(hn::Div(x, set(cap))));
}

HWY_INLINE float sum_lanes(Vec v) { return hn::GetLane(hn::SumOfLanes(F32(), v)); }

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
