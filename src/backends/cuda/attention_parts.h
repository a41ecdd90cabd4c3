// What the kernels of attention share. A row meets its tokens in tiles of kTileTokens, on a grid
// fixed by position, each from a fresh state; tiles are added up in ascending order. So its bits
// are the same whether one block takes all tiles of a row or many take some each and merge.
//
// attention.cu plans and merges; attention_rows.cu makes queries and writes keys and values;
// attention_f32.cu attends in f32, attention_tiles.h (narrow, wide) by tensor cores in 16 bits.
#pragma once

#include "backends/cuda/device_code.h"
#include "backends/cuda/kernels.h"

namespace llorch::cuda {

constexpr int kTileTokens = 64;
constexpr float kLog2E = 1.44269504088896341f;

// Kernels are made for these head dims, in elements; a head is filled up with zeros to the next.
constexpr int kHeadDims[] = {32, 64, 96, 128, 256};
constexpr int kMostHeadDim = 256;

enum class Stored : uint8_t { kF32, kF16, kBF16, kInt8, kE4M3 };

// Where a head's keys and values lie in a block: all keys, head by head, [token][row_elements],
// then all values alike; then, of 8-bit types, the f16 scales of 32 elements each, in that order.
struct KvLayout {
  Stored stored = Stored::kF32;
  int32_t block_tokens = 0, row_elements = 0, row_bytes = 0;
  int32_t row_scales = 0;  // of a head's token
  int64_t block_bytes = 0;
  int64_t scales_at = 0;                       // from the block's begin
  int64_t values_at = 0, value_scales_at = 0;  // from what keys have alike
};

// Where token `token` of a block has a head's keys, in bytes from the first block; its values lie
// kv.values_at behind them. The same of their scales, and kv.value_scales_at.
__device__ inline int64_t keys_at(const KvLayout& kv, int block, int token, int head) {
  return block * kv.block_bytes + (head * kv.block_tokens + token) * kv.row_bytes;
}
__device__ inline int64_t scales_at(const KvLayout& kv, int block, int token, int head) {
  const int row = head * kv.block_tokens + token;
  return block * kv.block_bytes + kv.scales_at + row * kv.row_scales * 2;
}

// Activations as device code writes them.
struct Outputs {
  float* values = nullptr;
  uint16_t* rounded = nullptr;
  bool f16 = false;  // else bf16
  int64_t stride = 0, rounded_stride = 0;
};

// One way through the step's rows: which sequences it takes, and how its blocks share them. The
// grid is kv heads x row tiles x splits; a row tile is consecutive pairs (row, query head of the kv
// head) of one sequence.
struct Way {
  int32_t least_rows = 1, most_rows = 0;  // of a sequence that goes this way
  int32_t row_tiles = 0;                  // a bound
  int32_t tiles_of_sequence = 0;          // a bound; 0: found by search
  int32_t splits = 1;                     // above 1: states are left for merge_states()
};

// What the attending kernels take.
struct TileArgs {
  const void* q = nullptr;  // [rows, heads, D]: f32 beside f32 kv, else 16 bits; D of kHeadDims
  const std::byte* blocks = nullptr;
  KvLayout kv = {};
  const int32_t *positions = nullptr, *query_start = nullptr, *slots = nullptr, *table = nullptr;
  const int32_t* row_sequence = nullptr;
  int32_t rows = 0, sequences = 0, table_width = 0;
  int32_t heads = 0, kv_heads = 0, group = 0, head_dim = 0, window = 0;
  // A score is q k * score_factor, in powers of two; with a cap, cap * tanh(q k * score_factor).
  float score_factor = 1, cap = 0;
  Outputs out = {};
  Way way = {};
  // States of rows that are split: [slot, heads, tiles_of_row] of D sums, then top and total.
  float* states = nullptr;
  int32_t tiles_of_row = 0;
  int32_t slots_of_sequence = 0;  // 0: a row's slot is its index
};

constexpr int kStateExtra = 4;  // floats of a state behind its sums: top, total and two to align

// What a row has summed in some tiles: the highest score, the sum of weights. Sums lie elsewhere.
struct RowState {
  float top, total;
};
struct Factors {
  float before, tile;
};
// How what was summed so far and what a tile gave are weighed by each other. No score: -inf.
__device__ inline Factors weigh(float top_before, float top_tile, float* top) {
  *top = fmaxf(top_before, top_tile);
  const float base = *top == -INFINITY ? 0 : *top;
  return {exp2_approx(top_before - base), exp2_approx(top_tile - base)};
}
__device__ inline float add_weighed(float before, float tile, const Factors& f) {
  return fmaf(before, f.before, tile * f.tile);
}

__device__ inline int first_seen(int position, int window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// The index of the state of a row's first tile.
__device__ inline int64_t state_index(const TileArgs& a, int sequence, int local, int row,
                                      int head) {
  const int64_t slot = a.slots_of_sequence > 0 ? sequence * a.slots_of_sequence + local : row;
  return (slot * a.heads + head) * a.tiles_of_row;
}

__device__ inline void put(const Outputs& out, int64_t row, int column, float v) {
  if (out.values) out.values[row * out.stride + column] = v;
  if (out.rounded) {
    out.rounded[row * out.rounded_stride + column] = out.f16 ? bounded_f16(v) : bf16_of_float(v);
  }
}

// Columns that are even, of rows that begin so.
__device__ inline void put_two(const Outputs& out, int64_t row, int column, float x, float y) {
  if (out.values) {
    *reinterpret_cast<float2*>(out.values + row * out.stride + column) = make_float2(x, y);
  }
  if (out.rounded) {
    *reinterpret_cast<uint32_t*>(out.rounded + row * out.rounded_stride + column) =
        out.f16 ? pack_f16(x, y) : pack_bf16(x, y);
  }
}

// A row tile's sequence and pairs.
struct RowTile {
  int sequence, first_row;  // of the sequence
  int first_pair, end_pair;
};

// Finds the block's row tile of `pairs` pairs; false: there is none of this way. Tile y begins
// sequence s where y = query_start[s] * group / pairs + s, which leaves each sequence enough.
__device__ inline bool find_row_tile(const TileArgs& a, int pairs, RowTile* tile) {
  // Of a prompt's rows the last see the most: they go first.
  const int y = a.way.row_tiles - 1 - static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int sequence = 0, index = 0;
  if (a.way.tiles_of_sequence > 0) {
    sequence = y / a.way.tiles_of_sequence;
    index = y % a.way.tiles_of_sequence;
  } else {
    int begun = 0;
    for (int first = 0; first < a.sequences; first += kWarp) {
      const int s = first + lane;
      const bool begins = s < a.sequences && a.query_start[s] * a.group / pairs + s <= y;
      begun += __popc(ballot(begins));
    }
    sequence = begun - 1;
    index = y - (a.query_start[sequence] * a.group / pairs + sequence);
  }
  tile->sequence = sequence;
  tile->first_row = a.query_start[sequence];
  const int rows = a.query_start[sequence + 1] - tile->first_row;
  tile->first_pair = index * pairs;
  tile->end_pair = min(tile->first_pair + pairs, rows * a.group);
  return rows >= a.way.least_rows && rows <= a.way.most_rows && tile->first_pair < tile->end_pair;
}

__device__ inline int warp_least(int v) {  // [warp]
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    v = min(v, static_cast<int>(shuffle_xor(static_cast<uint32_t>(v), mask)));
  }
  return v;
}

// The positions that rows of a row tile see: of any row first .. last, of every row all_first ..
// all_last. last -1: none sees any. The same in all warps. [warp]
struct Span {
  int first, last, all_first, all_last;
};
__device__ inline Span span_of(const TileArgs& a, const RowTile& tile) {
  constexpr int kNone = 0x7fffffff;
  Span span = {kNone, -1, -1, kNone};
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int end = tile.first_row + (tile.end_pair - 1) / a.group + 1;
  for (int row = tile.first_row + tile.first_pair / a.group + lane; row < end; row += kWarp) {
    if (a.slots[row] < 0) continue;
    const int last = a.positions[row], first = first_seen(last, a.window);
    span = {min(span.first, first), max(span.last, last), max(span.all_first, first),
            min(span.all_last, last)};
  }
  return {warp_least(span.first), -warp_least(-span.last), -warp_least(-span.all_first),
          warp_least(span.all_last)};
}

// The tiles begin .. end - 1 of a span that are this block's.
struct TileRange {
  int begin, end;
};
__device__ inline TileRange range_of(const Span& span, int splits) {
  if (span.last < 0) return {0, 0};
  const int begin = span.first / kTileTokens, count = span.last / kTileTokens + 1 - begin;
  const int part = static_cast<int>(blockIdx.z);
  return {begin + count * part / splits, begin + count * (part + 1) / splits};
}

// Finds the block's row tile, what its rows see, and its tiles: none if begin == end. Reads the
// step's arrays alone, which are uploaded: no kernel writes them, so this is for before
// wait_for_previous().
__device__ inline TileRange find_work(const TileArgs& a, int pairs, RowTile* tile, Span* span) {
  if (!find_row_tile(a, pairs, tile)) return {0, 0};
  *span = span_of(a, *tile);
  return range_of(*span, a.way.splits);
}

// Where token `position` of the sequence lies; block -1: no row of the span sees it.
struct Place {
  int block, token;
};
__device__ inline Place place_of(const TileArgs& a, int sequence, int position, const Span& span) {
  if (position < span.first || position > span.last) return {-1, 0};
  const auto at = static_cast<uint32_t>(position);
  const auto per_block = static_cast<uint32_t>(a.kv.block_tokens);
  const uint32_t index = at / per_block;
  return {a.table[int64_t{sequence} * a.table_width + index],
          static_cast<int>(at - index * per_block)};
}

// Pairs of a row tile.
int f32_pairs();
int narrow_pairs();
int wide_pairs(int d);
// Start the kernel for D = d with args.way's grid.
void attend_f32(const Gpu& gpu, int d, const TileArgs& args);
void attend_narrow(const Gpu& gpu, int d, const TileArgs& args);
void attend_wide(const Gpu& gpu, int d, const TileArgs& args);

// Norm, rope and kv write of the step's rows; queries go to `q`; see TileArgs.
void prepare_rows(const Gpu& gpu, const AttentionArgs& args, const KvLayout& kv, int d, void* q);

inline Outputs outputs_of(const Activations& out) {
  return {out.values, out.rounded, out.rounded_type == DType::kF16, out.stride,
          out.rounded_stride()};
}

inline LaunchShape grid_of(const TileArgs& args, uint32_t threads, size_t shared_bytes) {
  return {static_cast<uint32_t>(args.kv_heads), static_cast<uint32_t>(args.way.row_tiles),
          static_cast<uint32_t>(args.way.splits), threads, shared_bytes};
}

}  // namespace llorch::cuda
