// Products of quantised weights with many rows on the tile unit of newer Xeons: a tile's sums of a
// block are integers, so they are those of avx512vnni, bit by bit, and few rows are left to it.
#define LLORCH_ISA amxint8
#define LLORCH_VNNI

#include <immintrin.h>

#include "backends/cpu/quantised-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

constexpr int kTileRows = 16;
// From so many rows on tiles are quicker.
constexpr int kFewestRows = 7;
// Rows, and blocks of columns, that meet a panel at once: the sums and the codes are in the cache.
constexpr int kSumRows = 512;
constexpr int kTogetherBlocks = 32;
constexpr int64_t kTileBytes = int64_t{kBlockColumns} * kLanes;  // of codes, and of int8 rows

// What LDTILECFG reads (Intel SDM, volume 1, 18.2).
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 and 1 are sums, 4 and 5 rows of kColumns int8, 6 and 7 codes.
template <int kColumns>
void configure() {
  TileConfig config;
  for (const int tile : {0, 1, 4, 5, 6, 7}) {
    config.row_bytes[tile] = tile == 4 || tile == 5 ? kColumns : 64;
    config.rows[tile] = tile >= 6 ? kColumns / 4 : kTileRows;
  }
  asm volatile("" ::: "memory");  // the intrinsic owns up to reading eight bytes only
  _tile_loadconfig(&config);
}

// Two of them take turns, so that one computes while the other's sums are used.
template <int kTurn>
HWY_INLINE void multiply_tile(const int8_t* rows, const int8_t* codes, int32_t* sums) {
  if constexpr (kTurn == 0) {
    _tile_loadd(4, rows, kBlockColumns);
    _tile_loadd(6, codes, 64);
    _tile_zero(0);
    _tile_dpbssd(0, 4, 6);
    _tile_stored(0, sums, 64);
  } else {
    _tile_loadd(5, rows, kBlockColumns);
    _tile_loadd(7, codes, 64);
    _tile_zero(1);
    _tile_dpbssd(1, 5, 7);
    _tile_stored(1, sums, 64);
  }
}

// A vector of a panel's columns as tiles take it.
template <class B>
struct Expanded {
  alignas(64) int8_t codes[kTogetherBlocks][kTileBytes];  // signed, less zero
  alignas(64) float scales[kTogetherBlocks][B::kScales][kLanes];
  alignas(64) float minus_mins[kTogetherBlocks][kLanes];
};

template <class B>
HWY_INLINE void expand(BlockCursor<B>* at, int64_t first, int count, Expanded<B>* halves) {
  for (int b = 0; b < count; ++b) {
    for (int64_t i = 0; i < B::kBytes; i += 64) __builtin_prefetch(at->block + kBlockPrefetch + i);
    const LoadedBlock<B> loaded(*at, 0);
    for (int v = 0; v < kPanelVectors; ++v) {
      Expanded<B>& to = halves[v];
      for (int g = 0; g < 8; ++g) {
        Codes code = loaded.codes[v][g];
        if (B::kZero >= 0) code = hn::Sub(code, hn::Set(U8(), B::kZero < 0 ? 0 : 1 << B::kZero));
        hn::StoreU(code, U8(), reinterpret_cast<uint8_t*>(to.codes[b]) + g * kCodeVectorBytes);
      }
      for (int s = 0; s < B::kScales; ++s) store(loaded.scales[v][s], to.scales[b][s]);
      if (B::kHasMins) store(loaded.minus_mins[v], to.minus_mins[b]);
    }
    at->next(first + b);
  }
}

// sums += `count` blocks of kTileRows rows with those of kLanes columns.
template <class B>
HWY_INLINE void add_blocks(const int8_t* rows, const QuantisedBlock* of_rows, int64_t stride,
                           const Expanded<B>& w, int count, bool first, float* sums) {
  alignas(64) int32_t dots[2][B::kScales][kTileRows * kLanes];
  Vec acc[kTileRows];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) acc[r] = first ? zero() : load(sums + r * kPanelRows);
  const auto start = [&]<int kTurn>(int b) HWY_ATTR {
    for (int s = 0; s < B::kScales; ++s) {
      multiply_tile<kTurn>(rows + b * stride * kBlockColumns + s * (kBlockColumns / B::kScales),
                           w.codes[b] + s * (kTileBytes / B::kScales), dots[kTurn][s]);
    }
  };
  const auto finish = [&]<int kTurn>(int b) HWY_ATTR {
    const QuantisedBlock* row = of_rows + b * stride;
    for (int s = 0; s < B::kScales; ++s) {
      const Vec scale = load(w.scales[b][s]);
#pragma GCC unroll 16
      for (int r = 0; r < kTileRows; ++r) {
        const Ints dot = hn::LoadU(I32(), dots[kTurn][s] + r * kLanes);
        acc[r] = added<B>(acc[r], dot, scale, row[r].scale);
      }
    }
    if (!B::kHasMins) return;
    const Vec minus_min = load(w.minus_mins[b]);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) acc[r] = added_min(acc[r], minus_min, row[r].scaled_sum);
  };
  start.template operator()<0>(0);
  for (int b = 0; b < count; b += 2) {
    if (b + 1 < count) start.template operator()<1>(b + 1);
    finish.template operator()<0>(b);
    if (b + 1 == count) break;
    if (b + 2 < count) start.template operator()<0>(b + 2);
    finish.template operator()<1>(b + 1);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) store(acc[r], sums + r * kPanelRows);
}

template <class B>
void multiply_tiles(const Matmul& args, const std::byte* panel, int first, int rows,
                    Expanded<B>* halves, float* sums) {
  const QuantisedRows& x = args.quantised;
  const int64_t blocks = args.w.cols / kBlockColumns;
  BlockCursor<B> at(panel);
  for (int64_t b = 0; b < blocks; b += kTogetherBlocks) {
    const int count = min_of(kTogetherBlocks, static_cast<int>(blocks - b));
    expand(&at, b, count, halves);
    for (int row = 0; row < rows; row += kTileRows) {
      const int64_t place = b * x.stride + first + row;
      for (int v = 0; v < kPanelVectors; ++v) {
        add_blocks<B>(x.values + place * kBlockColumns, x.blocks + place, x.stride, halves[v],
                      count, b == 0, sums + row * kPanelRows + v * kLanes);
      }
    }
  }
}

// The scratch is of kBlockPanels * kBlockRows * kPanelRows floats.
template <int kType>
void matmul_tiles(const Matmul& args, int32_t first, int32_t last, float* scratch) {
  using B = Block<kType>;
  static_assert(kSumRows * kPanelRows * sizeof(float) + kPanelVectors * sizeof(Expanded<B>) <=
                sizeof(float) * kBlockPanels * kBlockRows * kPanelRows);
  if (args.m < kFewestRows) return matmul_quantised<kType>(args, first, last, scratch);
  auto* halves = reinterpret_cast<Expanded<B>*>(scratch + kSumRows * kPanelRows);
  configure<kBlockColumns / B::kScales>();
  for (int panel = first; panel < last; ++panel) {
    for (int row = 0; row < args.m; row += kSumRows) {
      const int rows = min_of(kSumRows, args.m - row);
      multiply_tiles<B>(args, args.w.panels + panel * args.w.panel_bytes, row, rows, halves,
                        scratch);
      finish_panel(args, panel, row, rows, scratch);
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();

namespace llorch::cpu {

void use_int8_tiles(Kernels* k) {
  k->matmul[kQ8_0] = amxint8::matmul_tiles<kQ8_0>;
  k->matmul[kQ4_0] = amxint8::matmul_tiles<kQ4_0>;
  k->matmul[kQ4_K] = amxint8::matmul_tiles<kQ4_K>;
  k->matmul[kQ5_K] = amxint8::matmul_tiles<kQ5_K>;
  k->matmul[kQ6_K] = amxint8::matmul_tiles<kQ6_K>;
  k->matmul[kIQ4_NL] = amxint8::matmul_tiles<kIQ4_NL>;
}

}  // namespace llorch::cpu
