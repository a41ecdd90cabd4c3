// Attention beside a kv cache of 16 or 8 bits, by tensor cores: queries, keys, values and weights
// are rounded to bf16, or to f16 beside a cache that is not bf16; sums are f32. attention_narrow.cu
// and attention_wide.cu make kernels of it.
//
// A block has kWarps warps of kRowTiles x 16 pairs of a row and a query head of one kv head. They
// share a tile of keys and one of values; while the one is computed with, the other is on its way.
#pragma once

#include "backends/cuda/attention_copy.h"
#include "backends/cuda/attention_parts.h"
#include "backends/cuda/launch.h"

namespace llorch::cuda {

template <int D, int kWarps, int kRowTiles>
struct TensorShape {
  static constexpr int kThreads = kWarps * kWarp, kWarpPairs = 16 * kRowTiles,
                       kPairs = kWarps * kWarpPairs;
  static constexpr size_t kSharedBytes =
      (size_t{kPairs} + 2 * kTileTokens) * kRowStride<D> * sizeof(uint16_t);
};

// A pair of a row and a query head; behind its row of queries.
struct PairInfo {
  int position;  // -1: none
  int row, head;
  int state;  // index of the state of tile 0
};

// What a block looks up anew for each tile: registers are for sums.
struct BlockFacts {
  Span span;
  int sequence;
};

// A block's shared memory: rows of kRowStride. Behind a query's row lies its PairInfo, behind a
// key's the TokenPlace of the tile that comes next, and behind the first two values' the
// BlockFacts.
struct TensorShared {
  uint16_t *q, *keys, *values;  // kPairs, kTileTokens and kTileTokens rows
};

template <int D>
__device__ inline void put_facts(const TensorShared& shared, const BlockFacts& facts) {
  behind_row<Span, D>(shared.values, 0) = facts.span;
  behind_row<int, D>(shared.values, 1) = facts.sequence;
}
template <int D>
__device__ inline BlockFacts facts_of(const TensorShared& shared) {
  return {behind_row<Span, D>(shared.values, 0), behind_row<int, D>(shared.values, 1)};
}

template <int D, int kPairs>
__device__ inline TensorShared split_shared() {
  auto* const q = dynamic_shared<uint16_t>();
  return {q, q + kPairs * kRowStride<D>, q + (kPairs + kTileTokens) * kRowStride<D>};
}

// What a lane knows of its rows g and g + 8 (g = lane / 4) of each of the warp's row tiles.
template <int D, int kRowTiles>
struct TensorRows {
  RowState state[kRowTiles][2];
  float sums[kRowTiles][D / 8][4];  // as mma_16 has them: of columns 2t, 2t + 1 of each 8

  __device__ void forget() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) state[r][0].top = state[r][1].top = -INFINITY;
  }
  __device__ void reset() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      state[r][0] = state[r][1] = {-INFINITY, 0};
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[r][n][i] = 0;
      }
    }
  }
};

// The lane's row g + 8 half of the warp's row tile r.
template <int D, int kRowTiles>
__device__ inline const PairInfo& pair_of(const TensorShared& shared, int r, int half) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return behind_row<PairInfo, D>(shared.q, (warp * kRowTiles + r) * 16 + half * 8 + lane / 4);
}

template <int kRowTiles>
using Scores = float[kRowTiles][kTileTokens / 8][4];
template <int kRowTiles>
using Weights = uint32_t[kRowTiles][kTileTokens / 16][4];  // fragments of mma_16's a

// s = q k of the warp's rows and the tile's tokens, over the elements in order.
template <int D, int kRowTiles, bool kF16>
__device__ inline void score_tile(const uint16_t* q, const uint16_t* keys, Scores<kRowTiles>& s) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  q += chunk_at<D>(lane % 16, lane / 16);
  keys += chunk_at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[r][n][i] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      load_matrix_x4(a[r], q + r * 16 * kRowStride<D> + k);
    }
#pragma unroll
    for (int n = 0; n < kTileTokens / 16; ++n) {
      uint32_t b[4];
      load_matrix_x4(b, keys + n * 16 * kRowStride<D> + k);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        mma_16<kF16>(s[r][2 * n], a[r], low);
        mma_16<kF16>(s[r][2 * n + 1], a[r], high);
      }
    }
  }
}

// Within a few 2^-23 of the tangent, absolutely: there are many, and tanhf() branches.
__device__ inline float quick_tanh(float v) {
  return fmaf(-2.0f, reciprocal_approx(exp2_approx(v * (2 * kLog2E)) + 1), 1.0f);
}

// With a cap, products become scores, in powers of two; without, they are scaled as they become
// weights.
template <int kRowTiles>
__device__ inline void cap_scores(const TileArgs& a, Scores<kRowTiles>& s) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[r][n][i] = a.cap * quick_tanh(s[r][n][i] * a.score_factor);
    }
  }
}

// Scores of tokens that a row does not see become -inf.
template <int D, int kRowTiles>
__device__ inline void mask_scores(const TileArgs& a, const TensorShared& shared, int tile,
                                   Scores<kRowTiles>& s) {
  const int column = tile * kTileTokens + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int last = pair_of<D, kRowTiles>(shared, r, half).position;
      const int first = first_seen(last, a.window);
#pragma unroll
      for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int position = column + n * 8 + i;
          float& score = s[r][n][2 * half + i];
          score = position <= last && position >= first ? score : -INFINITY;
        }
      }
    }
  }
}

// As pack_16(), of numbers up to 1, which need no bound.
template <bool kF16>
__device__ inline uint32_t pack_weights(float low, float high) {
  return kF16 ? f16_pair(low, high) : pack_bf16(low, high);
}

// Scores, times `factor`, become weights, 2^(score - top), rounded; `tops` are the lane's rows'.
// Not fused, so that no score exceeds the top: the rounding of large ones would be more than a few.
template <int kRowTiles, bool kF16>
__device__ inline void weigh_scores(const Scores<kRowTiles>& s, float factor,
                                    Weights<kRowTiles>& weights, float (&tops)[kRowTiles][2]) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = -INFINITY;
#pragma unroll
      for (int n = 0; n < kTileTokens / 8; ++n) {
        top = fmaxf(top, fmaxf(s[r][n][2 * half], s[r][n][2 * half + 1]));
      }
      top = fmaxf(top, shuffle_xor(top, 1));
      top = fmaxf(top, shuffle_xor(top, 2));
      top *= factor;
      tops[r][half] = top;
      const float base = top == -INFINITY ? 0 : -top;
#pragma unroll
      for (int n = 0; n < kTileTokens / 8; ++n) {
        weights[r][n / 2][half + n % 2 * 2] =
            pack_weights<kF16>(exp2_approx(s[r][n][2 * half] * factor + base),
                               exp2_approx(s[r][n][2 * half + 1] * factor + base));
      }
    }
  }
}

// Adds the tile to the rows' states: the weights' sum, and weights times values. Both begin at
// zero for each tile.
template <int D, int kRowTiles, bool kF16>
__device__ inline void add_tile(const Weights<kRowTiles>& weights,
                                const float (&tops)[kRowTiles][2], const uint16_t* values,
                                TensorRows<D, kRowTiles>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  values += chunk_at<D>(lane % 16, lane / 16);
  Factors factors[kRowTiles][2];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    constexpr uint32_t kOne = kF16 ? 0x3c003c00u : 0x3f803f80u;
    constexpr uint32_t kOnes[2] = {kOne, kOne};
    float totals[4] = {};
#pragma unroll
    for (int k = 0; k < kTileTokens / 16; ++k) mma_16<kF16>(totals, weights[r][k], kOnes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      RowState& state = rows.state[r][half];
      factors[r][half] = weigh(state.top, tops[r][half], &state.top);
      state.total = add_weighed(state.total, totals[2 * half], factors[r][half]);
    }
  }
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    float sums[kRowTiles][2][4] = {};
#pragma unroll
    for (int k = 0; k < kTileTokens / 16; ++k) {
      uint32_t b[4];
      load_matrix_x4_transposed(b, values + k * 16 * kRowStride<D> + d);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        mma_16<kF16>(sums[r][0], weights[r][k], low);
        mma_16<kF16>(sums[r][1], weights[r][k], high);
      }
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& sum = rows.sums[r][d / 8 + i / 4][i % 4];
        sum = add_weighed(sum, sums[r][i / 4][i % 4], factors[r][i % 4 / 2]);
      }
    }
    // Or all products come before all of these, and do not fit into registers.
    if (D > 64 && d % 32 == 16) sync_warp();
  }
}

// Where rows of a tile see different tokens: a value that is not finite becomes zero, and its key a
// NaN instead, so that rows that do not see the token are not told. Both are there, for all
// threads.
template <int D, int kThreads, bool kF16>
__device__ inline void hide_broken(uint16_t* keys, uint16_t* values) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kTileTokens * (D / 8); i += kThreads) {
    const int token = i / (D / 8);
    auto* const chunk = reinterpret_cast<uint4*>(values + chunk_at<D>(token, i % (D / 8)));
    const uint32_t words[4] = {chunk->x, chunk->y, chunk->z, chunk->w};
    bool finite = true;
#pragma unroll
    for (const uint32_t word : words) {
      constexpr uint32_t kLow = kF16 ? 0x7c00u : 0x7f80u, kHigh = kLow << 16;
      finite = finite && (word & kLow) != kLow && (word & kHigh) != kHigh;
    }
    if (finite) continue;
    *chunk = make_uint4(0, 0, 0, 0);
    keys[chunk_at<D>(token, 0)] = kF16 ? 0x7e00 : 0x7fc0;
  }
  sync_block();
}

template <int D, int kRowTiles>
__device__ inline void store_states(const TileArgs& a, const TensorShared& shared,
                                    const TensorRows<D, kRowTiles>& rows, int tile) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kRowTiles * 2; ++i) {
    const int r = i / 2, half = i % 2;
    const PairInfo pair = pair_of<D, kRowTiles>(shared, r, half);
    const int first_tile = first_seen(pair.position, a.window) / kTileTokens;
    if (pair.position < 0 || tile < first_tile || tile > pair.position / kTileTokens) continue;
    float* const state = a.states + int64_t{pair.state + tile} * (D + kStateExtra);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<float2*>(state + n * 8 + column) =
          make_float2(rows.sums[r][n][2 * half], rows.sums[r][n][2 * half + 1]);
    }
    if (column == 0) {
      *reinterpret_cast<float2*>(state + D) =
          make_float2(rows.state[r][half].top, rows.state[r][half].total);
    }
  }
}

template <int D, int kRowTiles>
__device__ inline void store_rows(const TileArgs& a, const TensorShared& shared,
                                  const TensorRows<D, kRowTiles>& rows) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  const bool even = a.head_dim % 2 == 0 && a.out.stride % 2 == 0;
#pragma unroll
  for (int i = 0; i < kRowTiles * 2; ++i) {
    const int r = i / 2, half = i % 2;
    const PairInfo pair = pair_of<D, kRowTiles>(shared, r, half);
    if (pair.position < 0) continue;
    const float factor = reciprocal_approx(rows.state[r][half].total);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      const int d = n * 8 + column, to = pair.head * a.head_dim + d;
      const float x = rows.sums[r][n][2 * half] * factor;
      const float y = rows.sums[r][n][2 * half + 1] * factor;
      if (d >= a.head_dim) break;
      if (even) {
        put_two(a.out, pair.row, to, x, y);
      } else {
        put(a.out, pair.row, to, x);
        if (d + 1 < a.head_dim) put(a.out, pair.row, to + 1, y);
      }
    }
  }
}

// Notes what pairs the block has, behind the rows of their queries.
template <int D, int kPairs, int kThreads>
__device__ inline void find_pairs(const TileArgs& a, const RowTile& tile, uint16_t* q) {
  for (int i = static_cast<int>(threadIdx.x); i < kPairs; i += kThreads) {
    const int pair = tile.first_pair + i, local = pair / a.group;
    PairInfo info{-1, tile.first_row + local, 0, 0};
    info.head = static_cast<int>(blockIdx.x) * a.group + pair - local * a.group;
    if (pair < tile.end_pair && a.slots[info.row] >= 0) {
      info.position = a.positions[info.row];
      info.state = static_cast<int>(state_index(a, tile.sequence, local, info.row, info.head)) -
                   first_seen(info.position, a.window) / kTileTokens;
    }
    behind_row<PairInfo, D>(q, i) = info;
  }
}

// Starts the copies of the queries of these pairs; zeros where there is none.
template <int D, int kPairs, int kThreads>
__device__ inline void load_queries(const TileArgs& a, uint16_t* q) {
  constexpr int kChunks = D / 8;
  const auto* const from = static_cast<const uint16_t*>(a.q);
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kPairs * kChunks; i += kThreads) {
    const int index = i / kChunks, chunk = i % kChunks;
    const PairInfo pair = behind_row<PairInfo, D>(q, index);
    const bool there = pair.position >= 0;
    const int64_t at = there ? (int64_t{pair.row} * a.heads + pair.head) * D + chunk * 8 : 0;
    copy_async_16(q + chunk_at<D>(index, chunk), from + at, there);
  }
}

// Where a thread's tokens of the next tile lie: looked up early, written once nobody reads the
// places before.
template <int kThreads>
struct NextPlaces {
  static constexpr int kCount = (kTileTokens + kThreads - 1) / kThreads;
  Place place[kCount];

  __device__ void find(const TileArgs& a, const BlockFacts& facts, int tile) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int token = i * kThreads + static_cast<int>(threadIdx.x);
      place[i] = {-1, 0};
      if (token < kTileTokens) {
        place[i] = place_of(a, facts.sequence, tile * kTileTokens + token, facts.span);
      }
    }
  }
  template <int D>
  __device__ void write(const TileArgs& a, uint16_t* rows) const {
    const int head = static_cast<int>(blockIdx.x);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int token = i * kThreads + static_cast<int>(threadIdx.x);
      if (token >= kTileTokens) continue;
      TokenPlace to{-1, -1};
      if (place[i].block >= 0) {
        to = {keys_at(a.kv, place[i].block, place[i].token, head),
              scales_at(a.kv, place[i].block, place[i].token, head)};
      }
      behind_row<TokenPlace, D>(rows, token) = to;
    }
  }
};

__device__ inline bool masked_in(const Span& span, int tile) {
  const int first = tile * kTileTokens, last = first + kTileTokens - 1;
  return first < span.all_first || last > span.all_last;
}
// Else no row finds anything but zeros where it sees nothing.
__device__ inline bool differs(const Span& span) {
  return span.first != span.all_first || span.last != span.all_last;
}

template <int D, int kWarps, int kRowTiles, TileKind kKind>
struct Attender {
  using Shape = TensorShape<D, kWarps, kRowTiles>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr bool kF16 = kKind != TileKind::kBF16;

  const TileArgs& a;
  TensorShared shared;
  TileSource key_source, value_source;
  TileCopy<D, kThreads, kKind != TileKind::kCodes> key_copy, value_copy;
  TensorRows<D, kRowTiles> rows;

  __device__ void start_keys() {
    key_copy.start(key_source, shared.keys);
    copy_async_commit();
  }
  __device__ void start_values() {
    value_copy.start(value_source, shared.values);
    copy_async_commit();
  }
  // Keys are there, of which the values are the only copies begun later; with `hidden` those too.
  __device__ void take_keys(bool hidden) {
    copy_async_wait<1>();
    key_copy.arrive(key_source, shared.keys);
    if (hidden) {
      copy_async_wait<0>();
      value_copy.arrive(value_source, shared.values);
    }
    sync_block();
    if (hidden) hide_broken<D, kThreads, kF16>(shared.keys, shared.values);
  }
  // The same of values, with the next keys begun later.
  __device__ void take_values() {
    copy_async_wait<1>();
    value_copy.arrive(value_source, shared.values);
    sync_block();
  }

  // What the step's arrays tell of the block.
  __device__ void prepare(const RowTile& tile, const Span& span, int first_tile) {
    NextPlaces<kThreads> next;
    next.find(a, {span, tile.sequence}, first_tile);
    find_pairs<D, Shape::kPairs, kThreads>(a, tile, shared.q);
    if (threadIdx.x == 0) put_facts<D>(shared, {span, tile.sequence});
    next.template write<D>(a, shared.keys);
  }

  __device__ void run(TileRange range) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const uint16_t* const q = shared.q + warp * Shape::kWarpPairs * kRowStride<D>;
    NextPlaces<kThreads> next;
    sync_block();
    load_queries<D, Shape::kPairs, kThreads>(a, shared.q);
    start_keys();
    start_values();
    rows.reset();
    for (int index = range.begin; index < range.end; ++index) {
      const BlockFacts facts = facts_of<D>(shared);
      const bool more = index + 1 < range.end;
      const bool masked = masked_in(facts.span, index), hidden = masked && differs(facts.span);
      take_keys(hidden);
      if (more) next.find(a, facts, index + 1);
      Scores<kRowTiles> s;
      score_tile<D, kRowTiles, kF16>(q, shared.keys, s);
      if (more) next.template write<D>(a, shared.keys);
      sync_block();
      if (more) key_copy.start(key_source, shared.keys);
      copy_async_commit();
      if (a.cap > 0) cap_scores<kRowTiles>(a, s);
      if (masked) mask_scores<D, kRowTiles>(a, shared, index, s);
      Weights<kRowTiles> weights;
      float tops[kRowTiles][2];
      weigh_scores<kRowTiles, kF16>(s, a.cap > 0 ? 1 : a.score_factor, weights, tops);
      if (!hidden) take_values();
      // A state of its own for each tile: what was before then counts nothing.
      if (a.way.splits > 1) rows.forget();
      add_tile<D, kRowTiles, kF16>(weights, tops, shared.values, rows);
      sync_block();
      if (more) value_copy.start(value_source, shared.values);
      copy_async_commit();
      if (a.way.splits > 1) store_states<D, kRowTiles>(a, shared, rows, index);
    }
    copy_async_wait<0>();
    if (a.way.splits == 1) store_rows<D, kRowTiles>(a, shared, rows);
  }
};

template <int D, int kWarps, int kRowTiles, TileKind kKind, int kBlocks>
__global__ void __launch_bounds__(kWarps* kWarp, kBlocks) attend_tiles(TileArgs a) {
  allow_next();
  using Shape = TensorShape<D, kWarps, kRowTiles>;
  RowTile tile;
  Span span;
  const TileRange range = find_work(a, Shape::kPairs, &tile, &span);
  const TensorShared shared = split_shared<D, Shape::kPairs>();
  const TileSource keys{a.blocks, a.blocks, &a.kv, shared.keys};
  const TileSource values{a.blocks + a.kv.values_at, a.blocks + a.kv.value_scales_at, &a.kv,
                          shared.keys};
  Attender<D, kWarps, kRowTiles, kKind> attender{a, shared, keys, values, {}, {}, {}};
  if (range.begin < range.end) attender.prepare(tile, span, range.begin);
  wait_for_previous();
  if (range.begin < range.end) attender.run(range);
}

template <int D, int kWarps, int kRowTiles, int kBlocks>
void start_tiles(const Gpu& gpu, const TileArgs& args) {
  using Shape = TensorShape<D, kWarps, kRowTiles>;
  const LaunchShape shape = grid_of(args, Shape::kThreads, Shape::kSharedBytes);
  switch (args.kv.stored) {
    case Stored::kBF16:
      return launch<attend_tiles<D, kWarps, kRowTiles, TileKind::kBF16, kBlocks>>(gpu, shape, args);
    case Stored::kF16:
      return launch<attend_tiles<D, kWarps, kRowTiles, TileKind::kF16, kBlocks>>(gpu, shape, args);
    default:
      return launch<attend_tiles<D, kWarps, kRowTiles, TileKind::kCodes, kBlocks>>(gpu, shape,
                                                                                   args);
  }
}

}  // namespace llorch::cuda
