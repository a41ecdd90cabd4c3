// Integer products of codes with int8 activations: what differs most between instruction sets.
#pragma once

#include "backends/cpu/simd-inl.h"

#if HWY_ARCH_X86
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

using U8 = hn::ScalableTag<uint8_t>;
using Codes = hn::Vec<U8>;  // four columns for each of kLanes rows
using Ints = hn::Vec<I32>;  // of each row
constexpr int kCodeVectorBytes = 4 * kLanes;

#if defined(LLORCH_VNNI)
constexpr bool kSignedCodes = false;  // of eight bits; those of fewer are not negative
#else
constexpr bool kSignedCodes = true;
#endif

// Four values of a row, for every row of weights.
HWY_INLINE Ints broadcast_four(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, sizeof four);
  return hn::Set(I32(), four);
}

#if defined(LLORCH_VNNI)

HWY_INLINE Ints dot_four(Ints sum, Codes w, Ints x) {
#if HWY_TARGET <= HWY_AVX3
  return Ints{_mm512_dpbusd_epi32(sum.raw, w.raw, x.raw)};
#else
  return Ints{_mm256_dpbusd_avx_epi32(sum.raw, w.raw, x.raw)};
#endif
}

#elif HWY_ARCH_X86

using I16 = hn::Repartition<int16_t, I32>;
using Shorts = hn::Vec<I16>;

// Sums of neighbours, w unsigned and x signed.
HWY_INLINE Shorts dot_two(Codes w, Ints x) {
#if HWY_TARGET <= HWY_AVX3
  return Shorts{_mm512_maddubs_epi16(w.raw, x.raw)};
#elif HWY_TARGET <= HWY_AVX2
  return Shorts{_mm256_maddubs_epi16(w.raw, x.raw)};
#else
  return Shorts{_mm_maddubs_epi16(w.raw, x.raw)};
#endif
}

// x where w is positive, -x where it is negative.
HWY_INLINE Ints with_sign_of(Ints x, Codes w) {
#if HWY_TARGET <= HWY_AVX3
  return Ints{
      _mm512_mask_sub_epi8(x.raw, _mm512_movepi8_mask(w.raw), _mm512_setzero_si512(), x.raw)};
#elif HWY_TARGET <= HWY_AVX2
  return Ints{_mm256_sign_epi8(x.raw, w.raw)};
#else
  return Ints{_mm_sign_epi8(x.raw, w.raw)};
#endif
}

HWY_INLINE Codes magnitude(Codes w) {
  const hn::Repartition<int8_t, U8> bytes;
  return hn::BitCast(U8(), hn::Abs(hn::BitCast(bytes, w)));  // of -128: 128, as it is unsigned then
}

HWY_INLINE Ints sum_pairs(Shorts x) {
  const Shorts ones = hn::Set(I16(), 1);
#if HWY_TARGET <= HWY_AVX3
  return Ints{_mm512_madd_epi16(x.raw, ones.raw)};
#elif HWY_TARGET <= HWY_AVX2
  return Ints{_mm256_madd_epi16(x.raw, ones.raw)};
#else
  return Ints{_mm_madd_epi16(x.raw, ones.raw)};
#endif
}

// sums += codes of groups [kFirst, kLast) times x. Two products of a code below 2^kBits and an
// activation of at most 127 are less than 2^(kBits + 8), so 16 bits hold so many pairs:
template <int kBits>
constexpr int kPairsInShort = kBits == 8   ? 1
                              : kBits == 6 ? 2
                              : kBits == 5 ? 4
                                           : 8;

// How many rows add_dots() is best given at once.
constexpr int kRowsTogether = 1;

template <int kBits, int kFirst, int kLast, int kVectors>
HWY_INLINE void add_dots(const Codes (&w)[kVectors][8], const int8_t* x,
                         Ints (&row_sums)[1][kVectors]) {
  Ints(&sums)[kVectors] = row_sums[0];
  constexpr int kStep =
      kPairsInShort<kBits> < kLast - kFirst ? kPairsInShort<kBits> : kLast - kFirst;
  for (int t = 0; t < kVectors; ++t) {
#pragma GCC unroll 8
    for (int g = kFirst; g < kLast; g += kStep) {
      if constexpr (kBits == 8) {
        const Ints four = broadcast_four(x + 4 * g);
        const Shorts pairs = dot_two(magnitude(w[t][g]), with_sign_of(four, w[t][g]));
        sums[t] = hn::Add(sums[t], sum_pairs(pairs));
      } else {
        Shorts pairs = dot_two(w[t][g], broadcast_four(x + 4 * g));
        for (int i = 1; i < kStep; ++i) {
          pairs = hn::Add(pairs, dot_two(w[t][g + i], broadcast_four(x + 4 * (g + i))));
        }
        sums[t] = hn::Add(sums[t], sum_pairs(pairs));
      }
    }
  }
}

#else

HWY_INLINE Ints dot_four(Ints sum, Codes w, Ints x) {
  const int8x16_t codes = vreinterpretq_s8_u8(w.raw), four = vreinterpretq_s8_s32(x.raw);
#if defined(__ARM_FEATURE_DOTPROD)
  return Ints(vdotq_s32(sum.raw, codes, four));
#else
  const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(four));
  const int16x8_t high = vmull_high_s8(codes, four);
  return Ints(vaddq_s32(sum.raw, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))));
#endif
}

#if defined(__ARM_FEATURE_MATMUL_INT8)

// Codes as the instruction takes them that multiplies two rows with two: of a vector's first two
// rows and of its last two, eight columns of one and then of the other.
struct PairedCodes {
  int8x16_t first[4], last[4];

  HWY_INLINE explicit PairedCodes(const Codes (&w)[8]) {
    for (int i = 0; i < 4; ++i) {
      const int32x4_t even = vreinterpretq_s32_u8(w[2 * i].raw);
      const int32x4_t odd = vreinterpretq_s32_u8(w[2 * i + 1].raw);
      first[i] = vreinterpretq_s8_s32(vzip1q_s32(even, odd));
      last[i] = vreinterpretq_s8_s32(vzip2q_s32(even, odd));
    }
  }
};

// sum += codes of groups [kFirst, kLast) times a row, next_sum += those times the next one.
template <int kFirst, int kLast>
HWY_INLINE void add_dots_of_two(const PairedCodes& w, const int8_t* x, Ints& sum, Ints& next_sum) {
  int32x4_t first = vdupq_n_s32(0), last = vdupq_n_s32(0);
#pragma GCC unroll 4
  for (int i = kFirst / 2; i < kLast / 2; ++i) {
    const int8x16_t both = vcombine_s8(vld1_s8(x + 8 * i), vld1_s8(x + kBlockColumns + 8 * i));
    first = vmmlaq_s32(first, both, w.first[i]);
    last = vmmlaq_s32(last, both, w.last[i]);
  }
  const int64x2_t a = vreinterpretq_s64_s32(first), b = vreinterpretq_s64_s32(last);
  sum = Ints(vaddq_s32(sum.raw, vreinterpretq_s32_s64(vzip1q_s64(a, b))));
  next_sum = Ints(vaddq_s32(next_sum.raw, vreinterpretq_s32_s64(vzip2q_s64(a, b))));
}

#endif

#endif

#if defined(LLORCH_VNNI) || HWY_ARCH_ARM

// How many rows add_dots() is best given at once: a product takes longer than the next one, which
// must not wait for it, may start after it.
constexpr int kRowsTogether = 4;

// sums[r][t] += codes of groups [kFirst, kLast) times row r of x.
template <int kBits, int kFirst, int kLast, int kRows, int kVectors>
HWY_INLINE void add_dots(const Codes (&w)[kVectors][8], const int8_t* x,
                         Ints (&sums)[kRows][kVectors]) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  if constexpr (kRows % 2 == 0) {
    for (int t = 0; t < kVectors; ++t) {
      const PairedCodes paired(w[t]);
      for (int r = 0; r < kRows; r += 2) {
        add_dots_of_two<kFirst, kLast>(paired, x + r * kBlockColumns, sums[r][t], sums[r + 1][t]);
      }
    }
    return;
  }
#endif
#pragma GCC unroll 8
  for (int g = kFirst; g < kLast; ++g) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Ints four = broadcast_four(x + r * kBlockColumns + 4 * g);
      for (int t = 0; t < kVectors; ++t) sums[r][t] = dot_four(sums[r][t], w[t][g], four);
    }
  }
}

#endif

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
