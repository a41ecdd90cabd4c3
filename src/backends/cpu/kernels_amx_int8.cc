// Products of quantised weights with many rows on the tile unit of newer Xeons: a tile's sums of a
// block are integers, so they are those of avx512vnni, bit by bit, and few rows are left to it.
#define LLORCH_ISA amxint8
#define LLORCH_VNNI

#include "backends/cpu/quantised-inl.h"
#include "backends/cpu/tile_config-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

constexpr int kTileRows = kRowTile;
// From so many rows on tiles are quicker.
constexpr int kFewestRows = 48;
// Blocks of columns that rows and panels meet at once, as measured. Eight stay in the first cache
// with all that meets them; those with minima have more to begin and to end with.
template <class B>
constexpr int kTogetherBlocks = B::kLayout.blocks_per_header == 1 ? 8 : 32;
constexpr int64_t kTileBytes = int64_t{kBlockColumns} * kLanes;  // of codes, and of int8 rows

// Tiles 0 to 3 are sums, 4 and 5 rows of kColumns int8, 6 and 7 codes.
template <int kColumns>
void configure() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = tile == 4 || tile == 5 ? kColumns : 64;
    config.rows[tile] = tile >= 6 ? kColumns / 4 : kTileRows;
  }
  config.load();
}

// Tile kTile = the products of rows and codes. Rows and codes take turns in two tiles each.
template <int kTile>
HWY_INLINE void multiply_tile(const int8_t* rows, const int8_t* codes) {
  if constexpr (kTile % 2 == 0) {
    _tile_loadd(4, rows, kBlockColumns);
    _tile_loadd(6, codes, 64);
  } else {
    _tile_loadd(5, rows, kBlockColumns);
    _tile_loadd(7, codes, 64);
  }
  if constexpr (kTile == 0) {
    _tile_zero(0);
    _tile_dpbssd(0, 4, 6);
  } else if constexpr (kTile == 1) {
    _tile_zero(1);
    _tile_dpbssd(1, 5, 7);
  } else if constexpr (kTile == 2) {
    _tile_zero(2);
    _tile_dpbssd(2, 4, 6);
  } else {
    _tile_zero(3);
    _tile_dpbssd(3, 5, 7);
  }
}

template <int kTile>
HWY_INLINE void store_tile(int32_t* sums) {
  if constexpr (kTile == 0) _tile_stored(0, sums, 64);
  if constexpr (kTile == 1) _tile_stored(1, sums, 64);
  if constexpr (kTile == 2) _tile_stored(2, sums, 64);
  if constexpr (kTile == 3) _tile_stored(3, sums, 64);
}

// A vector of a panel's columns as tiles take it.
template <class B>
struct Expanded {
  alignas(64) int8_t codes[kTogetherBlocks<B>][kTileBytes];  // signed, less zero
  alignas(64) float scales[kTogetherBlocks<B>][B::kScales][kLanes];
  alignas(64) float minus_mins[kTogetherBlocks<B>][kLanes];
};

template <class B>
HWY_INLINE void expand(BlockCursor<B> at, int64_t first, int count, Expanded<B>* halves) {
  for (int b = 0; b < count; ++b) {
    const LoadedBlock<B> loaded(at, 0);
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
    at.next(first + b);
  }
}

// A tile of rows that meets columns of a panel. Where it has fewer than kTileRows, what comes of
// the others is not used.
struct TileRows {
  const int8_t* values;
  const QuantisedBlock* blocks;
  int64_t rows;
};

// The steps of a tile of rows over columns of a panel: one for each scale of each block. While the
// sums of one are used, those of the next are stored and those of the one after it computed, as
// both take long.
template <class B>
class TileSteps {
 public:
  using Dots = int32_t[4][kTileRows * kLanes];  // of the last steps

  // `dots` is not a member: what tiles are stored to has to be in memory, all else in registers.
  HWY_INLINE TileSteps(const TileRows& x, const Expanded<B>& w, Dots& dots)
      : rows_(x.values),
        codes_(w.codes[0]),
        row_(x.blocks),
        scales_(w.scales[0][0]),
        minus_mins_(w.minus_mins[0]),
        tile_rows_(x.rows),
        dots_(dots) {}

  HWY_INLINE void run(int count, Vec (&acc)[kTileRows]) {
    asm volatile("" ::: "memory");  // g++ 12's tile loads do not own up to reading memory
    multiply<0>();
    if (count > 1) multiply<1>();
    store_tile<0>(dots_[0]);
    int left = count;
    for (; left >= kTiles + 2; left -= kTiles) {
      advance<0>(acc);
      advance<1>(acc);
      advance<2>(acc);
      advance<3>(acc);
    }
    finish<0>(left, acc);
  }

 private:
  static constexpr int kTiles = 4;

  template <int kTile>
  HWY_INLINE void multiply() {
    multiply_tile<kTile>(rows_, codes_);
    codes_ += kTileBytes / B::kScales;
    if constexpr (B::kScales == 1) {
      rows_ += tile_rows_ * kBlockColumns;
    } else {
      rows_ += kTile % 2 == 0 ? kBlockColumns / 2 : tile_rows_ * kBlockColumns - kBlockColumns / 2;
    }
  }

  template <int kTile>
  HWY_INLINE void use(Vec (&acc)[kTileRows]) {
    const Vec scale = load(scales_);
    scales_ += kLanes;
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const Ints dot = hn::LoadU(I32(), dots_[kTile] + r * kLanes);
      acc[r] = added<B>(acc[r], dot, scale, row_[r].scale);
    }
    if constexpr (B::kHasMins) {
      const Vec minus_min = load(minus_mins_);
      minus_mins_ += kLanes;
#pragma GCC unroll 16
      for (int r = 0; r < kTileRows; ++r) acc[r] = added_min(acc[r], minus_min, row_[r].scaled_sum);
    }
    if (B::kScales == 1 || kTile % 2 == 1) row_ += tile_rows_;
  }

  template <int kTile>
  HWY_INLINE void advance(Vec (&acc)[kTileRows]) {
    multiply<(kTile + 2) % kTiles>();
    store_tile<(kTile + 1) % kTiles>(dots_[(kTile + 1) % kTiles]);
    use<kTile>(acc);
  }

  // The last steps, fewer than kTiles + 2.
  template <int kStep>
  HWY_INLINE void finish(int left, Vec (&acc)[kTileRows]) {
    if (kStep == left) return;
    if (kStep + 2 < left) multiply<(kStep + 2) % kTiles>();
    if (kStep + 1 < left) store_tile<(kStep + 1) % kTiles>(dots_[(kStep + 1) % kTiles]);
    use<kStep % kTiles>(acc);
    if constexpr (kStep + 1 < kTiles + 2) finish<kStep + 1>(left, acc);
  }

  const int8_t* rows_;
  const int8_t* codes_;
  const QuantisedBlock* row_;
  const float* scales_;
  const float* minus_mins_;
  const int64_t tile_rows_;
  Dots& dots_;
};

// sums += `blocks` blocks of kTileRows rows with those of kLanes columns.
template <class B>
HWY_NOINLINE void add_blocks(const TileRows& x, const Expanded<B>& w, int blocks, bool first,
                             float* sums) {
  Vec acc[kTileRows];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) acc[r] = first ? zero() : load(sums + r * kPanelRows);
  alignas(64) typename TileSteps<B>::Dots dots;
  TileSteps<B>(x, w, dots).run(blocks * B::kScales, acc);
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) store(acc[r], sums + r * kPanelRows);
}

// Asks for the weights that are expanded next, a share with each tile of rows: no expansion waits
// for memory then.
struct NextWeights {
  const std::byte* at;
  int64_t share;  // bytes

  HWY_INLINE void fetch_share() {
    for (const std::byte* end = at + share; at < end; at += 64) __builtin_prefetch(at);
  }
};

// Some panels meet some rows, of which kTileSumRows at most.
template <class B>
struct TileBlock {
  const Matmul& args;
  int first, last;  // panels
  int first_row, rows;
  float* sums;  // [panels][kTileSumRows][kPanelRows]
  Expanded<B>* halves;

  HWY_INLINE const std::byte* weights(int panel, int64_t block) const {
    return BlockCursor<B>(args.w.panels + panel * args.w.panel_bytes, block).header;
  }
  HWY_INLINE float* sums_of(int panel) const {
    return sums + int64_t{panel - first} * kTileSumRows * kPanelRows;
  }

  HWY_INLINE void add(int panel, int64_t block, int count, NextWeights next) const {
    const QuantisedRows& x = args.quantised;
    expand(BlockCursor<B>(args.w.panels + panel * args.w.panel_bytes, block), block, count, halves);
    for (int row = 0; row < rows; row += kTileRows) {
      next.fetch_share();
      const int64_t place = ((first_row + row) / kTileRows * x.block_count + block) * x.tile_rows;
      for (int v = 0; v < kPanelVectors; ++v) {
        add_blocks<B>({x.values + place * kBlockColumns, x.blocks + place, x.tile_rows}, halves[v],
                      count, block == 0, sums_of(panel) + row * kPanelRows + v * kLanes);
      }
    }
  }

  // Some blocks of the rows stay in the second-level cache while all panels meet them.
  HWY_INLINE void multiply() const {
    const int64_t blocks = args.quantised.block_count;
    const int tiles = (rows + kTileRows - 1) / kTileRows;
    for (int64_t block = 0; block < blocks; block += kTogetherBlocks<B>) {
      const int count = min_of(kTogetherBlocks<B>, static_cast<int>(blocks - block));
      for (int panel = first; panel < last; ++panel) {
        const std::byte* next = panel + 1 < last ? weights(panel + 1, block)
                                                 : weights(first, block + kTogetherBlocks<B>);
        const int64_t bytes = weights(panel, block + count) - weights(panel, block);
        add(panel, block, count, {next, bytes / tiles + 1});
      }
    }
  }

  // Row by row: what a row's panels give lies side by side.
  HWY_INLINE void finish() const {
    for (int row = 0; row < rows; row += kTileRows) {
      const int count = min_of(kTileRows, rows - row);
      for (int panel = first; panel < last; ++panel) {
        finish_panel(args, panel, first_row + row, count, sums_of(panel) + row * kPanelRows);
      }
    }
  }
};

// The scratch is of kBlockPanels * kTileSumRows * kPanelRows floats and kTileScratch bytes more.
template <int kType>
void matmul_tiles(const Matmul& args, int32_t first, int32_t last, float* scratch) {
  using B = Block<kType>;
  static_assert(kPanelVectors * sizeof(Expanded<B>) <= kTileScratch);
  if (args.m < kFewestRows) return matmul_quantised<kType>(args, first, last, scratch);
  auto* halves = reinterpret_cast<Expanded<B>*>(scratch + kBlockPanels * kTileSumRows * kPanelRows);
  configure<kBlockColumns / B::kScales>();
  for (int row = 0; row < args.m; row += kTileSumRows) {
    const TileBlock<B> block{args,    first, last, row, min_of(kTileSumRows, args.m - row),
                             scratch, halves};
    block.multiply();
    block.finish();
  }
  _tile_release();
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();

namespace llorch::cpu {

void use_int8_tiles(Kernels* k) {
  k->sum_rows = kTileSumRows;
  k->matmul[kQ8_0] = amxint8::matmul_tiles<kQ8_0>;
  k->matmul[kQ4_0] = amxint8::matmul_tiles<kQ4_0>;
  k->matmul[kQ4_K] = amxint8::matmul_tiles<kQ4_K>;
  k->matmul[kQ5_K] = amxint8::matmul_tiles<kQ5_K>;
  k->matmul[kQ6_K] = amxint8::matmul_tiles<kQ6_K>;
  k->matmul[kIQ4_NL] = amxint8::matmul_tiles<kIQ4_NL>;
}

}  // namespace llorch::cpu
