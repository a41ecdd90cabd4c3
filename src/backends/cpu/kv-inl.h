// How the keys and values of a kv head lie in a block, for each stored type: see KvLayer. Knows
// where a token goes and how a run of tokens comes back as floats; not what is done with them.
#pragma once

#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

// q8_0, as in ggml's blocks: an f16 scale, the largest magnitude over 127, times an int8 each. The
// product is exact in f32: 11 bits times 8.
struct StoredQ8 {
  static constexpr int kBlock = kKvQ8Block;
  using Int8 = hn::Rebind<int8_t, F32>;

  static HWY_INLINE Vec load_row(const int8_t* p, Vec scale) {
    return hn::Mul(hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::LoadU(Int8(), p))), scale);
  }
  // Stores a block's numbers and gives its scale.
  static HWY_INLINE uint16_t store_block(const float* from, int8_t* to) {
    auto most = hn::Zero(I32());  // of bits without sign: a NaN is the largest
    for (int i = 0; i < kBlock; i += kLanes) {
      most = hn::Max(most, hn::BitCast(I32(), hn::Abs(load(from + i))));
    }
    const float largest = hn::GetLane(hn::BitCast(F32(), hn::MaxOfLanes(I32(), most)));
    const uint16_t stored = StoredF16::from_f32(largest / 127);
    const float scale = StoredF16::to_f32(stored);
    const Vec factor = set(scale == 0 ? 0 : 1 / scale);
    for (int i = 0; i < kBlock; i += kLanes) {
      const Vec steps = hn::Mul(load(from + i), factor);
      const Vec within = hn::Min(set(127.0f), hn::Max(set(-127.0f), steps));
      hn::StoreU(hn::DemoteTo(Int8(), hn::NearestInt(within)), Int8(), to + i);
    }
    return stored;
  }
};

template <class Stored>
struct KvRows {
  using Element = typename Stored::Element;
  static constexpr bool kLoadsRows = true;  // values can be read where they lie

  static HWY_INLINE void store_key(const float* from, const KvLayer& kv, int token,
                                   std::byte* keys) {
    Element* to = reinterpret_cast<Element*>(keys) + token;
    for (int d = 0; d < kv.row; d += kLanes) {
      Element lanes[kLanes];
      Stored::store_row(load(from + d), lanes);
      for (int i = 0; i < kLanes; ++i) to[(d + i) * kv.block_tokens] = lanes[i];
    }
  }
  static HWY_INLINE void store_value(const float* from, const KvLayer& kv, int token,
                                     std::byte* values) {
    Element* to = reinterpret_cast<Element*>(values) + token * kv.row;
    for (int d = 0; d < kv.row; d += kLanes) Stored::store_row(load(from + d), to + d);
  }
  // `count` tokens from `token` on, to [row][kChunkTokens].
  static HWY_INLINE void unpack_keys(const std::byte* keys, const KvLayer& kv, int token, int count,
                                     float* to) {
    const Element* from = reinterpret_cast<const Element*>(keys) + token;
    int j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      for (int d = 0; d < kv.row; ++d) {
        store(Stored::load_row(from + d * kv.block_tokens + j), to + d * kChunkTokens + j);
      }
    }
    for (; j < count; ++j) {
      for (int d = 0; d < kv.row; ++d) {
        to[d * kChunkTokens + j] = Stored::to_f32(from[d * kv.block_tokens + j]);
      }
    }
  }
  static HWY_INLINE const Element* value_of(const std::byte* values, const KvLayer& kv, int token) {
    return reinterpret_cast<const Element*>(values) + token * kv.row;
  }
  // `count` tokens from `token` on, to [count][row].
  static HWY_INLINE void unpack_values(const std::byte* values, const KvLayer& kv, int token,
                                       int count, float* to) {
    const Element* from = value_of(values, kv, token);
    for (int i = 0; i < count * kv.row; i += kLanes) store(Stored::load_row(from + i), to + i);
  }
};

template <>
struct KvRows<StoredQ8> {
  static constexpr bool kLoadsRows = false;
  static constexpr int kBlock = StoredQ8::kBlock;

  static HWY_INLINE void store_key(const float* from, const KvLayer& kv, int token,
                                   std::byte* keys) {
    int8_t* to = reinterpret_cast<int8_t*>(keys) + token;
    for (int d = 0; d < kv.row; d += kBlock) {
      int8_t block[kBlock];
      scales_of(keys, kv)[d / kBlock * kv.block_tokens + token] =
          StoredQ8::store_block(from + d, block);
      for (int i = 0; i < kBlock; ++i) to[(d + i) * kv.block_tokens] = block[i];
    }
  }
  static HWY_INLINE void store_value(const float* from, const KvLayer& kv, int token,
                                     std::byte* values) {
    int8_t* to = reinterpret_cast<int8_t*>(values) + token * kv.row;
    uint16_t* scales = scales_of(values, kv) + token * (kv.row / kBlock);
    for (int d = 0; d < kv.row; d += kBlock) {
      scales[d / kBlock] = StoredQ8::store_block(from + d, to + d);
    }
  }
  static HWY_INLINE void unpack_keys(const std::byte* keys, const KvLayer& kv, int token, int count,
                                     float* to) {
    const int8_t* from = reinterpret_cast<const int8_t*>(keys) + token;
    const uint16_t* scales = scales_of(keys, kv) + token;
    for (int block = 0; block < kv.row; block += kBlock, scales += kv.block_tokens) {
      int j = 0;
      for (; j + kLanes <= count; j += kLanes) {
        const Vec scale = StoredF16::load_row(scales + j);
        for (int d = block; d < block + kBlock; ++d) {
          store(StoredQ8::load_row(from + d * kv.block_tokens + j, scale),
                to + d * kChunkTokens + j);
        }
      }
      for (; j < count; ++j) {
        const float scale = StoredF16::to_f32(scales[j]);
        for (int d = block; d < block + kBlock; ++d) {
          to[d * kChunkTokens + j] = static_cast<float>(from[d * kv.block_tokens + j]) * scale;
        }
      }
    }
  }
  static HWY_INLINE void unpack_values(const std::byte* values, const KvLayer& kv, int token,
                                       int count, float* to) {
    const int8_t* from = reinterpret_cast<const int8_t*>(values) + token * kv.row;
    const uint16_t* scales = scales_of(values, kv) + token * (kv.row / kBlock);
    for (int block = 0; block < count * kv.row; block += kBlock) {
      const Vec scale = set(StoredF16::to_f32(scales[block / kBlock]));
      for (int i = block; i < block + kBlock; i += kLanes) {
        store(StoredQ8::load_row(from + i, scale), to + i);
      }
    }
  }

 private:
  static HWY_INLINE uint16_t* scales_of(std::byte* half, const KvLayer& kv) {
    return reinterpret_cast<uint16_t*>(half + kv.block_tokens * kv.row);
  }
  static HWY_INLINE const uint16_t* scales_of(const std::byte* half, const KvLayer& kv) {
    return reinterpret_cast<const uint16_t*>(half + kv.block_tokens * kv.row);
  }
};

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
