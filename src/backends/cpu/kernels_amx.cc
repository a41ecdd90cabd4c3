// Products with bf16 weights on the tile unit of newer Xeons; all else is avx512's, and
// kernels_amx_int8.cc's. The unit
// multiplies bf16 with bf16, exactly, and sums in f32, so an activation is split into three bf16
// that together are the float: what comes out is as exact as f32 arithmetic, at more than twice the
// speed.
#define LLORCH_ISA amx

#include "backends/cpu/matmul-inl.h"
#include "backends/cpu/tile_config-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

constexpr int kTileFloats = 16;  // in a row of a tile: 16 floats, or 16 pairs of bf16
constexpr int kTileRows = kSplitRows;
constexpr int kTileColumns = 2 * kTileFloats;
constexpr int64_t kTileElements = int64_t{kTileRows} * kTileColumns;
constexpr int64_t kBlockWeights = int64_t{kTileColumns} * kPanelRows;  // of a block of columns
static_assert(kPanelRows == 2 * kTileFloats && kTileColumns == kSplitColumns && kTileRows == 16);

// Tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 the halves of a panel. The sums are those of two
// tiles of rows with a panel or, of up to 16 rows, those of one with two panels.
void configure(int rows) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64;
  const bool two = rows > kTileRows;
  const auto first = static_cast<uint8_t>(two ? kTileRows : rows);
  const auto second = static_cast<uint8_t>(two ? rows - kTileRows : rows);
  config.rows[0] = config.rows[1] = config.rows[4] = first;
  config.rows[2] = config.rows[3] = config.rows[5] = second;
  config.rows[6] = config.rows[7] = kTileRows;
  config.load();
}

HWY_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

HWY_INLINE void store_sums(float* sums) {
  constexpr int64_t kStride = kPanelRows * sizeof(float);
  float* second = sums + kTileRows * kPanelRows;
  _tile_stored(0, sums, kStride);
  _tile_stored(1, sums + kTileFloats, kStride);
  _tile_stored(2, second, kStride);
  _tile_stored(3, second + kTileFloats, kStride);
}

// A sum is over one block of columns after the other, and within one over the parts of the
// activations, the large ones first: the same for every number of rows.

// Two tiles of rows with a panel.
HWY_INLINE void multiply_two(const uint16_t* rows, const uint16_t* panel, int64_t blocks,
                             float* sums) {
  const uint16_t* more = rows + blocks * kSplits * kTileElements;
  clear_sums();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint16_t* weights = panel + block * kBlockWeights;
    _tile_loadd(6, weights, 2 * 64);
    _tile_loadd(7, weights + kTileColumns, 2 * 64);
    for (int part = 0; part < kSplits; ++part) {
      const int64_t at = (block * kSplits + part) * kTileElements;
      _tile_loadd(4, rows + at, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, more + at, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  store_sums(sums);
}

// Few rows wait for weights, which the unit's own loads do not ask for early enough: to the second
// cache from afar, to the first when they are next.
HWY_INLINE void fetch_ahead(const uint16_t* weights) {
  constexpr int kLine = 64 / sizeof(uint16_t);
  for (int i = 0; i < kBlockWeights; i += kLine) {
    __builtin_prefetch(weights + 4 * kBlockWeights + i, 0, 2);
    __builtin_prefetch(weights + kBlockWeights + i);
  }
}

// One tile of rows with two panels, which may be the same.
HWY_INLINE void multiply_one(const uint16_t* rows, const uint16_t* first, const uint16_t* second,
                             int64_t blocks, float* sums) {
  clear_sums();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint16_t* parts = rows + block * kSplits * kTileElements;
    const uint16_t* weights = first + block * kBlockWeights;
    fetch_ahead(weights);
    _tile_loadd(6, weights, 2 * 64);
    _tile_loadd(7, weights + kTileColumns, 2 * 64);
    for (int part = 0; part < kSplits; ++part) {
      _tile_loadd(4, parts + part * kTileElements, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
    weights = second + block * kBlockWeights;
    fetch_ahead(weights);
    _tile_loadd(6, weights, 2 * 64);
    _tile_loadd(7, weights + kTileColumns, 2 * 64);
    for (int part = 0; part < kSplits; ++part) {
      _tile_loadd(5, parts + part * kTileElements, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  store_sums(sums);
}

// Two tiles of rows stay in the second-level cache while all panels meet them.
void matmul_split(const Matmul& args, int32_t first, int32_t last, float* scratch) {
  const int64_t blocks = (args.w.cols - 1) / kTileColumns + 1;
  float* second_sums = scratch + kTileRows * kPanelRows;
  const auto weights = [&](int panel) {
    return reinterpret_cast<const uint16_t*>(args.w.panels + panel * args.w.panel_bytes);
  };
  const uint16_t* x = args.split;
  for (int row = 0; row < args.m; row += 2 * kTileRows, x += 2 * blocks * kSplits * kTileElements) {
    const int rows = min_of(2 * kTileRows, args.m - row);
    if (row == 0 || rows < 2 * kTileRows) configure(rows);
    for (int panel = first; panel < last; ++panel) {
      if (rows > kTileRows) {
        multiply_two(x, weights(panel), blocks, scratch);
        finish_panel(args, panel, row, rows, scratch);
      } else {
        const int next = min_of(panel + 1, last - 1);
        multiply_one(x, weights(panel), weights(next), blocks, scratch);
        finish_panel(args, panel, row, rows, scratch);
        if (next > panel) finish_panel(args, next, row, rows, second_sums);
        panel = next;
      }
    }
  }
  _tile_release();
}

// What is left of a number once a part of it is taken; of infinities and NaNs, nothing.
HWY_INLINE Vec rest_of(Vec x, Vec part) {
  return hn::IfThenElseZero(hn::IsFinite(x), hn::Sub(x, part));
}

HWY_INLINE Vec load_part(const float* x, int count) {
  if (count >= kTileFloats) return load(x);
  float padded[kTileFloats] = {};
  for (int i = 0; i < count; ++i) padded[i] = x[i];
  return load(padded);
}

void split_row(const float* x, int32_t row, int32_t cols, uint16_t* tiles) {
  const int64_t blocks = (cols - 1) / kTileColumns + 1;
  uint16_t* to =
      tiles + row / kTileRows * blocks * kSplits * kTileElements + row % kTileRows * kTileColumns;
  for (int column = 0; column < blocks * kTileColumns; column += kTileFloats) {
    uint16_t* bits = to + column / kTileColumns * kSplits * kTileElements + column % kTileColumns;
    Vec rest = load_part(x + column, cols - column);
    for (int part = 0; part < kSplits; ++part, bits += kTileElements) {
      StoredBF16::store_row(rest, bits);
      rest = rest_of(rest, StoredBF16::load_row(bits));
    }
  }
}

void embed(const PanelWeight& table, int32_t row, float scale, float* out) {
  const auto* panel =
      reinterpret_cast<const uint16_t*>(table.panels + row / kPanelRows * table.panel_bytes);
  const int within = row % kPanelRows;
  const uint16_t* pairs = panel + within / kTileFloats * kTileColumns + within % kTileFloats * 2;
  for (int64_t k = 0; k < table.cols; ++k) {
    out[k] = StoredBF16::to_f32(pairs[k / 2 * 2 * kPanelRows + k % 2]) * scale;
  }
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();

namespace llorch::cpu {

const Kernels& amx_kernels() {
  static const Kernels kernels = [] {
    Kernels k = avx512_vnni_kernels();
    k.name = "amx";
    k.split_row = amx::split_row;
    k.matmul[kBF16] = amx::matmul_split;
    k.embed[kBF16] = amx::embed;
    use_int8_tiles(&k);
    return k;
  }();
  return kernels;
}

}  // namespace llorch::cpu
