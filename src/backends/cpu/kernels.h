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

// A weight in panels of Kernels::panel_rows rows. Within a panel: column by column, the rows of a
// column side by side; the last panel is filled up with zeros. How bf16 elements lie instead, see
// packed_weight.cc.
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
  const uint16_t* split;  // x as Kernels::split_row() leaves it; null if it is not used
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

// Functions that depend on a stored type are indexed by DType.
struct Kernels {
  const char* name;
  int32_t lanes;       // floats per vector
  int32_t panel_rows;  // a multiple of 2 * lanes

  // Panels [first, last), at most kBlockPanels. `scratch` holds kBlockPanels * kBlockRows *
  // panel_rows floats.
  void (*matmul[3])(const Matmul& args, int32_t first, int32_t last, float* scratch);
  // Null, or makes what bf16 weights' products take in place of floats: one row, in tiles [of rows]
  // [of columns][kSplits][kSplitRows][kSplitColumns], the last ones filled up.
  void (*split_row)(const float* x, int32_t row, int32_t cols, uint16_t* tiles);
  // One row of a packed weight, times scale.
  void (*embed[3])(const PanelWeight& table, int32_t row, float scale, float* out);
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
  void (*write_kv[4])(const Attend& args, int32_t first, int32_t last, float* scratch);
  // A tile's attention over all of its pieces. `scratch` holds attend_piece's, and two states.
  void (*attend[4])(const Attend& args, const AttendTile& tile, float* scratch);
  // The same in steps. What the queries have summed is a state: kv.row + 2 floats for each.
  // A piece alone; `scratch` holds 2 * kChunkTokens * kv.row floats, and kv.row + kChunkTokens + 3
  // for each query.
  void (*attend_piece[4])(const Attend& args, const AttendTile& tile, int32_t piece, float* state,
                          float* scratch);
  // Adds a piece's state to that of the pieces before it, which the tile's first one makes.
  void (*merge_piece)(const Attend& args, const AttendTile& tile, int32_t piece, const float* state,
                      float* sum);
  void (*finish_attend)(const Attend& args, const AttendTile& tile, const float* sum);
};

extern const Kernels kSseKernels, kAvx2Kernels, kAvx512Kernels, kNeonKernels;
const Kernels& amx_kernels();

}  // namespace llorch::cpu
