// How tiles of keys and values come into shared memory: bf16 and f16 as they are, codes of 8 bits
// as f16, converted where they arrive. For attention_tiles.h alone.
#pragma once

#include "backends/cuda/attention_parts.h"

namespace llorch::cuda {

// Rows of D 16-bit floats in shared memory are so far apart that eight of them have a column's
// chunk of 16 bytes in different banks: what ldmatrix reads at once. The 16 bytes between two are
// used too.
template <int D>
constexpr int kRowStride = D + 8;
template <int D>
__device__ inline int chunk_at(int row, int chunk) {  // in elements
  return row * kRowStride<D> + chunk * 8;
}
template <class T, int D>
__device__ inline T& behind_row(uint16_t* rows, int row) {
  static_assert(sizeof(T) <= 16);
  return *reinterpret_cast<T*>(rows + row * kRowStride<D> + D);
}

// Where a token has its keys of the block's head, in bytes, and their scales; -1: nobody sees it.
struct TokenPlace {
  int64_t at, scales_at;
};

// What is copied: keys, or values with what lies between them and keys.
struct TileSource {
  const std::byte *blocks, *scales;
  const KvLayout* kv;
  uint16_t* places;  // rows in shared memory that have their tokens' TokenPlaces behind them
};

// Rows of kParts parts, shared by kThreads threads: the u-th that a thread takes. Mostly its part
// is the same for all u, which spares registers.
template <int kParts, int kThreads>
struct Share {
  static constexpr bool kWhole = kThreads % kParts == 0;
  static constexpr int kCount = kTileTokens * kParts / kThreads;
  static_assert(kCount * kThreads == kTileTokens * kParts);

  __device__ static int row(int u) {
    const unsigned thread = threadIdx.x;
    return static_cast<int>(kWhole
                                ? thread / kParts + static_cast<unsigned>(u * (kThreads / kParts))
                                : (static_cast<unsigned>(u * kThreads) + thread) / kParts);
  }
  __device__ static int part(int u) {
    const unsigned thread = threadIdx.x;
    return static_cast<int>(kWhole ? thread % kParts
                                   : (static_cast<unsigned>(u * kThreads) + thread) % kParts);
  }
};

// What a tile is made of.
enum class TileKind { kBF16, kF16, kCodes };

// Brings tiles. start(), then a wait for the copies, then arrive(), then a barrier: each thread
// converts what it has copied itself.
template <int D, int kThreads, bool kDirect>
class TileCopy {
 public:
  __device__ void start(const TileSource& from, uint16_t* tile) {
    using Chunks = Share<D / 8, kThreads>;
#pragma unroll 8
    for (int u = 0; u < Chunks::kCount; ++u) {
      const int token = Chunks::row(u), chunk = Chunks::part(u);
      const int64_t at = behind_row<TokenPlace, D>(from.places, token).at;
      const bool there = at >= 0 && chunk * 8 < from.kv->row_elements;
      copy_async_16(tile + chunk_at<D>(token, chunk), from.blocks + (there ? at + chunk * 16 : 0),
                    there);
    }
  }
  __device__ void arrive(const TileSource&, uint16_t*) {}
};

// 16 8-bit codes times their scale.
__device__ inline void widen_codes(const uint4& codes, float scale, Stored stored,
                                   uint32_t (&pairs)[8]) {
  const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t two = words[i / 2] >> (i % 2 * 16);
    const auto low = static_cast<uint8_t>(two), high = static_cast<uint8_t>(two >> 8);
    if (stored == Stored::kInt8) {
      pairs[i] = pack_f16(static_cast<float>(static_cast<int8_t>(low)) * scale,
                          static_cast<float>(static_cast<int8_t>(high)) * scale);
    } else {
      pairs[i] = pack_f16(float_of_e4m3(low) * scale, float_of_e4m3(high) * scale);
    }
  }
}

// Units of 16 elements, two chunks in the tile; codes wait in the first of them, their scale, two
// to a register, here.
template <int D, int kThreads>
class TileCopy<D, kThreads, false> {
 public:
  __device__ void start(const TileSource& from, uint16_t* tile) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int token = Units::row(u), unit = Units::part(u);
      const TokenPlace place = behind_row<TokenPlace, D>(from.places, token);
      const bool there = place.at >= 0 && unit * 16 < from.kv->row_elements;
      const int64_t at = there ? place.at + unit * 16 : 0;
      copy_async_16(tile + chunk_at<D>(token, 2 * unit), from.blocks + at, there);
      uint32_t scale = 0;
      if (there) {
        scale = reinterpret_cast<const uint16_t*>(from.scales + place.scales_at)[unit / 2];
      }
      scales_[u / 2] = u % 2 == 0 ? scale : scales_[u / 2] | scale << 16;
    }
  }

  __device__ void arrive(const TileSource& from, uint16_t* tile) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      auto* const first =
          reinterpret_cast<uint4*>(tile + chunk_at<D>(Units::row(u), 2 * Units::part(u)));
      auto* const second =
          reinterpret_cast<uint4*>(tile + chunk_at<D>(Units::row(u), 2 * Units::part(u) + 1));
      uint32_t pairs[8];
      const auto bits = static_cast<uint16_t>(scales_[u / 2] >> (u % 2 * 16));
      widen_codes(*first, float_of_f16(bits), from.kv->stored, pairs);
      *first = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      *second = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
    }
  }

 private:
  using Units = Share<D / 16, kThreads>;
  static constexpr int kUnits = Units::kCount;
  uint32_t scales_[(kUnits + 1) / 2];
};

}  // namespace llorch::cuda
