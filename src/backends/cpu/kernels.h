// What one instruction set's kernels offer to the backend: plain functions over plain memory. Each
// set is one translation unit compiled with its own flags, so nothing here may have a body that
// another unit could share (the linker keeps one copy for all).
#pragma once

#include <cstddef>
#include <cstdint>

namespace llorch::cpu {

// Tokens that attention treats at once. The grid is fixed by position, whatever the kv blocks are.
constexpr int kChunkTokens = 64;
// Tokens after which attention begins anew, to add up what the pieces gave in their order: pieces
// of a long sequence can be computed by several threads. On the same grid.
constexpr int kPieceTokens = 16 * kChunkTokens;
// Elements of a block of DType::kQ8_0.
constexpr int kKvQ8Block = 32;
// Columns whose products are summed in registers before they are added to the row's sum.
constexpr int kSumColumns = 256;
// Rows and panels of one pass over a block of weights; together they bound the scratch.
constexpr int kBlockRows = 128;
constexpr int kBlockPanels = 8;
// Up to so many rows a product waits for weights rather than for arithmetic.
constexpr int kFewRows = 24;
// Where Kernels::split_row is there: into how many bf16 an activation is split, and how many rows
// and columns a tile of them has.
constexpr int kSplits = 3;
constexpr int kSplitRows = 16;
constexpr int kSplitColumns = 32;
// Queries (rows x heads of one kv head) of an attention tile, unless one row has more.
constexpr int kTileQueries = 64;
// Types of weights, as DType numbers them, and how many of them kv blocks may have.
enum WeightType : int { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_K, kQ5_K, kQ6_K, kIQ4_NL };
constexpr int kWeightTypes = 9, kKvTypes = 4;

// Quantised weights and the activations that meet them go by columns of so many.
constexpr int kBlockColumns = 32;
constexpr int kRowTile = 16;
// Where tiles multiply them: rows whose sums are kept at once, and bytes for codes.
constexpr int kTileSumRows = 512, kTileScratch = 96 << 10;
// How such a block lies in a panel, in bytes for each of its rows: quantised_panel.h says more.
struct PanelBlock {
  int bits;          // of a code
  int code_bytes;    // codes of the block's columns
  int scale_bytes;   // and what they are multiplied with
  int header_bytes;  // what so many blocks share, before the first of them
  int blocks_per_header;
};
// Indexed by WeightType.
constexpr PanelBlock kPanelBlocks[kWeightTypes] = {{},
                                                   {},
                                                   {},
                                                   {8, 32, 2, 0, 1},
                                                   {4, 16, 2, 0, 1},
                                                   {4, 16, 2, 4, 8},
                                                   {5, 20, 2, 4, 8},
                                                   {6, 24, 2, 2, 8},
                                                   {4, 16, 2, 0, 1}};

// Activations for quantised weights: int8 times a scale, block by block, row by row.
struct QuantisedBlock {
  float scale;
  float scaled_sum;    // scale times the sum of the values
  int32_t minus_sum;   // minus the sum of the values
  int32_t minus_half;  // of the first half of them
};
// Rows go by kRowTile, or all together if they are fewer: [tiles][blocks][tile_rows].
struct QuantisedRows {
  int8_t* values;  // kBlockColumns each, -127 to 127
  QuantisedBlock* blocks;
  int64_t block_count;
  int32_t tile_rows;
};

// A weight in panels of Kernels::panel_rows rows. Within a panel: column by column, the rows of a
// column side by side; the last panel is filled up with zeros. How bf16 elements lie instead, see
// packed_weight.cc; quantised blocks, quantised_panel.h.
struct PanelWeight {
  const std::byte* panels;  // 64-byte aligned
  const float* bias;        // [panels * panel_rows], or null
  int64_t panel_bytes;
  int32_t rows, cols;
};

// out[i][n] = softcap(bias[n] + sum over k of x[i][k] * w[n][k])
struct Matmul {
  const float* const* x;  // [m] rows
  float* out;             // [m], out_stride floats apart
  int64_t out_stride;
  int32_t m;
  float softcap;  // 0 = off
  PanelWeight w;
  const uint16_t* split;    // x as Kernels::split_row() leaves it; null if it is not used
  QuantisedRows quantised;  // x for quantised weights
};

// The kv blocks of one layer. A block holds its keys, then its values, head after head. A head's
// values are [tokens][row]; its keys are turned, [row][tokens], as queries meet many tokens at
// once. Of q8_0 all int8 come first, then the scales: [tokens][row / 32], of keys [row /
// 32][tokens].
struct KvLayer {
  std::byte* blocks;
  int64_t block_bytes;  // from one block of this layer to the next
  int64_t half_bytes;   // from a block's keys to its values
  int64_t head_bytes;   // from one head's keys, or values, to the next one's
  int32_t block_tokens;
  int32_t row;  // head_dim rounded up to 16 elements, of q8_0 to 32; the rest zero
};

// RMSNorm, or LayerNorm if `centred`. Null: no norm, and no bias.
struct RowNorm {
  const float *gain, *bias;  // [n]
  float eps;
  bool centred;
};

struct Attend {
  const float* qkv;  // [T][qkv_cols]: heads, then keys, then values
  float* out;        // [T][heads * head_dim]
  int32_t heads, kv_heads, head_dim, window;
  float scale, softcap;
  RowNorm q_norm, k_norm;        // of head_dim
  const float *cosines, *sines;  // [T][rope_dims / 2]
  int32_t rope_dims;             // 0 = no rope
  bool interleaved;
  KvLayer kv;
  const int32_t *positions, *slots;  // [T]
};

// Rows of one sequence, on the heads of one kv head.
struct AttendTile {
  const int32_t* blocks;  // of the sequence
  int32_t first_row, rows, kv_head;
  int32_t first_piece, end_piece;  // the pieces that hold all that the rows see
};

// Panels [first, last), at most kBlockPanels. `scratch` holds kBlockPanels * sum_rows * panel_rows
// floats and kTileScratch bytes.
using MatmulKernel = void (*)(const Matmul& args, int32_t first, int32_t last, float* scratch);

// Functions that depend on a stored type are indexed by WeightType.
struct Kernels {
  const char* name;
  int32_t lanes;       // floats per vector
  int32_t panel_rows;  // a multiple of 2 * lanes
  int32_t sum_rows;

  MatmulKernel matmul[kWeightTypes];
  // Null, or makes what bf16 weights' products take in place of floats: one row, in tiles [of rows]
  // [of columns][kSplits][kSplitRows][kSplitColumns], the last ones filled up.
  void (*split_row)(const float* x, int32_t row, int32_t cols, uint16_t* tiles);
  // One row to its place in `rows`; `cols` is a whole number of blocks.
  void (*quantise_row)(const float* x, int32_t row, int32_t cols, const QuantisedRows& rows);
  // One row of a packed weight, times scale.
  void (*embed[kWeightTypes])(const PanelWeight& table, int32_t row, float scale, float* out);
  // out = a + b
  void (*add)(const float* a, const float* b, int32_t n, float* out);
  // Of one row, whose mean and squares are summed in an order that depends on n alone.
  void (*norm)(const float* x, const RowNorm& norm, int32_t n, float* out);
  // gate[i] = act(gate[i]) * up[i], or without the product if `up` is null. Indexed by Act.
  void (*activate[3])(float* gate, const float* up, int32_t n);
  // sum += factor * x
  void (*add_scaled)(const float* x, float factor, int32_t n, float* sum);
  float (*dot)(const float* a, const float* b, int32_t n);
  // k and v of rows [first, last) to their slots. `scratch` holds kv.row floats.
  void (*write_kv[kKvTypes])(const Attend& args, int32_t first, int32_t last, float* scratch);
  // A tile's attention over all of its pieces. `scratch` holds attend_piece's, and two states.
  void (*attend[kKvTypes])(const Attend& args, const AttendTile& tile, float* scratch);
  // The same in steps. What the queries have summed is a state: kv.row + 2 floats for each.
  // A piece alone; `scratch` holds 2 * kChunkTokens * kv.row floats, and kv.row + kChunkTokens + 3
  // for each query.
  void (*attend_piece[kKvTypes])(const Attend& args, const AttendTile& tile, int32_t piece,
                                 float* state, float* scratch);
  // Adds a piece's state to that of the pieces before it, which the tile's first one makes.
  void (*merge_piece)(const Attend& args, const AttendTile& tile, int32_t piece, const float* state,
                      float* sum);
  void (*finish_attend)(const Attend& args, const AttendTile& tile, const float* sum);
};

extern const Kernels kSseKernels, kAvx2Kernels, kAvx512Kernels, kNeonKernels;
// Another table with quicker products.
const Kernels& avx_vnni_kernels();
const Kernels& avx512_vnni_kernels();
const Kernels& neon_dot_kernels();
const Kernels& neon_i8mm_kernels();
const Kernels& amx_kernels();
void use_int8_tiles(Kernels* kernels);  // for products of quantised weights with many rows

}  // namespace llorch::cpu
