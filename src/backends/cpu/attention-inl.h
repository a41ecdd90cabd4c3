// Attention over paged kv. A row meets its tokens in pieces and, within each, in chunks, both on a
// grid fixed by position and each in one order, so its result does not depend on the tile, the
// other rows, the size of the kv blocks or who computes which piece.
#pragma once

#include "backends/cpu/kv-inl.h"
#include "backends/cpu/pointwise-inl.h"
#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

constexpr float kLowest = -3.4028234663852886e38f;

// Turns the first rope_dims of a head in place.
HWY_INLINE void rotate(const Attend& args, int row, float* head) {
  const int half = args.rope_dims / 2;
  const float* cosines = args.cosines + static_cast<int64_t>(row) * half;
  const float* sines = args.sines + static_cast<int64_t>(row) * half;
  int i = 0;
  if (!args.interleaved) {
    for (; i + kLanes <= half; i += kLanes) {
      const Vec x = load(head + i), y = load(head + half + i);
      const Vec c = load(cosines + i), s = load(sines + i);
      store(hn::Sub(hn::Mul(x, c), hn::Mul(y, s)), head + i);
      store(hn::Add(hn::Mul(y, c), hn::Mul(x, s)), head + half + i);
    }
  }
  for (; i < half; ++i) {
    float& a = head[args.interleaved ? 2 * i : i];
    float& b = head[args.interleaved ? 2 * i + 1 : half + i];
    const float x = a, y = b;
    a = x * cosines[i] - y * sines[i];
    b = y * cosines[i] + x * sines[i];
  }
}

// A query or key: copied, normed, turned, filled up with zeros to kv.row.
HWY_INLINE void prepare_head(const Attend& args, int row, const float* from,
                             const RowNorm& head_norm, float* to) {
  const int n = args.head_dim;
  if (head_norm.gain != nullptr) {
    norm(from, head_norm, n, to);
  } else {
    __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  }
  for (int i = n; i < args.kv.row; ++i) to[i] = 0;
  if (args.rope_dims > 0) rotate(args, row, to);
}

HWY_INLINE int64_t qkv_cols(const Attend& args) {
  return (args.heads + 2 * int64_t{args.kv_heads}) * args.head_dim;
}

template <class Stored>
void write_kv(const Attend& args, int32_t first, int32_t last, float* scratch) {
  const KvLayer& kv = args.kv;
  for (int row = first; row < last; ++row) {
    const int slot = args.slots[row];
    if (slot < 0) continue;
    const float* keys = args.qkv + row * qkv_cols(args) + int64_t{args.heads} * args.head_dim;
    const float* values = keys + int64_t{args.kv_heads} * args.head_dim;
    const int token = slot % kv.block_tokens;
    std::byte* block = kv.blocks + slot / kv.block_tokens * kv.block_bytes;
    for (int h = 0; h < args.kv_heads; ++h) {
      std::byte* head = block + h * kv.head_bytes;
      prepare_head(args, row, keys + int64_t{h} * args.head_dim, args.k_norm, scratch);
      KvRows<Stored>::store_key(scratch, kv, token, head);
      const float* value = values + int64_t{h} * args.head_dim;
      for (int i = 0; i < kv.row; ++i) scratch[i] = i < args.head_dim ? value[i] : 0;
      KvRows<Stored>::store_value(scratch, kv, token, head + kv.half_bytes);
    }
  }
}

// What the queries of a tile have summed so far.
struct State {
  float* sums;    // [queries][kv.row]: weighted values
  float* tops;    // [queries]: highest score
  float* totals;  // [queries]: sum of weights
};

HWY_INLINE State state_at(float* floats, int queries, int row) {
  float* tops = floats + static_cast<int64_t>(queries) * row;
  return {floats, tops, tops + queries};
}

// What a tile knows of its queries; `queries` of them, row by row, head by head.
struct Queries {
  State sum;
  float* q;        // [queries][kv.row]
  float* scores;   // [queries][kChunkTokens]
  float* keys;     // [kv.row][kChunkTokens]
  float* values;   // [kChunkTokens][kv.row]: where they are not read where they lie
  float* shrinks;  // [queries]: the factor for what was summed before this chunk
  int32_t* first;  // [queries]: positions that it sees, first ..
  int32_t* last;   // .. to last - 1
};

HWY_INLINE Queries split_scratch(float* scratch, float* state, int queries, int row) {
  Queries t;
  const int64_t chunk = static_cast<int64_t>(row) * kChunkTokens;
  t.sum = state_at(state, queries, row);
  t.q = scratch;
  t.scores = t.q + static_cast<int64_t>(queries) * row;
  t.keys = t.scores + static_cast<int64_t>(queries) * kChunkTokens;
  t.values = t.keys + chunk;
  t.shrinks = t.values + chunk;
  t.first = reinterpret_cast<int32_t*>(t.shrinks + queries);
  t.last = t.first + queries;
  return t;
}

// The next chunk's keys and values, asked for bit by bit while this one's are computed with. A
// head's in one block are too short for the machine to see that it should, and asked for all at
// once they would keep the computing's own loads waiting.
struct Ahead {
  const std::byte* parts[2 * kChunkTokens];
  int count = 0, part = 0;
  int64_t part_bytes;  // of each
  int64_t step;        // bytes at a time
  int64_t at = 0;      // in the part

  HWY_INLINE void ask() {
    for (int64_t i = 0; i < step && part < count; i += 64) {
      __builtin_prefetch(parts[part] + at, 0, 2);
      at += 64;
      if (at < part_bytes) continue;
      at = 0;
      ++part;
    }
  }
};

// Queries and vectors whose sums are in registers together.
constexpr int kTogether = 4;
// Up to so many queries read values where they lie; more of them find it worth to make floats
// first.
constexpr int kFewQueries = 2 * kTogether;
constexpr int kSumVectors = HWY_ARCH_ARM || HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// Dot products of N queries with kSumVectors vectors of keys, each in the order of its elements.
template <int N>
HWY_INLINE void score_some(const float* q, int row, const float* keys, float* scores) {
  Vec acc[N][kSumVectors];
  for (int i = 0; i < N; ++i) {
    for (int v = 0; v < kSumVectors; ++v) acc[i][v] = zero();
  }
  for (int d = 0; d < row; ++d) {
    Vec k[kSumVectors];
    for (int v = 0; v < kSumVectors; ++v) k[v] = load(keys + d * kChunkTokens + v * kLanes);
    for (int i = 0; i < N; ++i) {
      const Vec x = set(q[i * row + d]);
      for (int v = 0; v < kSumVectors; ++v) acc[i][v] = hn::MulAdd(x, k[v], acc[i][v]);
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int v = 0; v < kSumVectors; ++v) store(acc[i][v], scores + i * kChunkTokens + v * kLanes);
  }
}

HWY_INLINE void score_chunk(const Queries& t, int queries, int row, int begin, int end,
                            Ahead& ahead) {
  constexpr int kTokens = kSumVectors * kLanes;
  static_assert(kChunkTokens % kTokens == 0);
  for (int j = begin / kTokens * kTokens; j < end; j += kTokens) {
    int i = 0;
    for (; i + kTogether <= queries; i += kTogether) {
      ahead.ask();
      score_some<kTogether>(t.q + int64_t{i} * row, row, t.keys + j,
                            t.scores + int64_t{i} * kChunkTokens + j);
    }
    for (; i < queries; ++i) {
      score_some<1>(t.q + int64_t{i} * row, row, t.keys + j,
                    t.scores + int64_t{i} * kChunkTokens + j);
    }
  }
}

// Turns a query's scores of tokens [begin, end) of the chunk into weights, all others into zeros.
HWY_INLINE void weigh_chunk(const Attend& args, const Queries& t, int i, int begin, int end) {
  float* scores = t.scores + int64_t{i} * kChunkTokens;
  Vec top = set(t.sum.tops[i]);
  for (int j = 0; j < kChunkTokens; j += kLanes) {
    Vec s = hn::Mul(load(scores + j), set(args.scale));
    if (args.softcap > 0) s = soft_capped(s, args.softcap);
    store(s, scores + j);
  }
  for (int j = 0; j < begin; ++j) scores[j] = kLowest;
  for (int j = end; j < kChunkTokens; ++j) scores[j] = kLowest;
  for (int j = 0; j < kChunkTokens; j += kLanes) top = hn::Max(top, load(scores + j));
  top = hn::MaxOfLanes(F32(), top);
  Vec total = zero();
  for (int j = 0; j < kChunkTokens; j += kLanes) {
    store(exp(hn::Sub(load(scores + j), top)), scores + j);
  }
  for (int j = 0; j < begin; ++j) scores[j] = 0;
  for (int j = end; j < kChunkTokens; ++j) scores[j] = 0;
  for (int j = 0; j < kChunkTokens; j += kLanes) total = hn::Add(total, load(scores + j));
  const float shrink = hn::GetLane(exp(hn::Sub(set(t.sum.tops[i]), top)));
  t.sum.tops[i] = hn::GetLane(top);
  t.sum.totals[i] = t.sum.totals[i] * shrink + sum_lanes(total);
  t.shrinks[i] = shrink;
}

// sums = sums * shrink + weights times values, of N queries and V vectors of the head at once.
template <class Stored, int N, int V>
HWY_INLINE void add_some(const Queries& t, int first, int row, int begin, int end, int d,
                         const typename Stored::Element* const* values) {
  const float* weights = t.scores + int64_t{first} * kChunkTokens;
  float* sums = t.sum.sums + int64_t{first} * row + d;
  Vec acc[N][V];
  for (int i = 0; i < N; ++i) {
    const Vec shrink = set(t.shrinks[first + i]);
    for (int v = 0; v < V; ++v) acc[i][v] = hn::Mul(load(sums + i * row + v * kLanes), shrink);
  }
  for (int j = begin; j < end; ++j) {
    Vec x[V];
    for (int v = 0; v < V; ++v) x[v] = Stored::load_row(values[j] + d + v * kLanes);
    for (int i = 0; i < N; ++i) {
      const Vec w = set(weights[i * kChunkTokens + j]);
      for (int v = 0; v < V; ++v) acc[i][v] = hn::MulAdd(w, x[v], acc[i][v]);
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int v = 0; v < V; ++v) store(acc[i][v], sums + i * row + v * kLanes);
  }
}

// N queries that see the same tokens.
template <class Stored, int N>
HWY_INLINE void add_chunk(const Queries& t, int first, int row, int begin, int end,
                          const typename Stored::Element* const* values) {
  int d = 0;
  for (; d + kSumVectors * kLanes <= row; d += kSumVectors * kLanes) {
    add_some<Stored, N, kSumVectors>(t, first, row, begin, end, d, values);
  }
  for (; d < row; d += kLanes) add_some<Stored, N, 1>(t, first, row, begin, end, d, values);
}

// The positions [first, last) that a row sees.
struct Seen {
  int first, last;
};

HWY_INLINE Seen seen_by(const Attend& args, int row) {
  if (args.slots[row] < 0) return {0, 0};
  const int last = args.positions[row] + 1;
  return {args.window == 0 ? 0 : max_of(0, last - args.window), last};
}

// What of it lies in a piece.
HWY_INLINE Seen within(Seen seen, int piece) {
  return {max_of(seen.first, piece * kPieceTokens), min_of(seen.last, (piece + 1) * kPieceTokens)};
}

// Loads the tile's queries. Returns what they see of the piece, all together.
HWY_INLINE Seen start_queries(const Attend& args, const AttendTile& tile, int piece,
                              const Queries& t) {
  const int group = args.heads / args.kv_heads;
  Seen all = {0x7fffffff, 0};
  for (int i = 0; i < tile.rows * group; ++i) {
    const int row = tile.first_row + i / group, head = tile.kv_head * group + i % group;
    prepare_head(args, row, args.qkv + row * qkv_cols(args) + int64_t{head} * args.head_dim,
                 args.q_norm, t.q + int64_t{i} * args.kv.row);
    for (int d = 0; d < args.kv.row; ++d) t.sum.sums[int64_t{i} * args.kv.row + d] = 0;
    t.sum.tops[i] = kLowest;
    t.sum.totals[i] = 0;
    const Seen seen = within(seen_by(args, row), piece);
    t.first[i] = seen.first;
    t.last[i] = seen.last;
    if (seen.first >= seen.last) continue;
    all.first = min_of(all.first, seen.first);
    all.last = max_of(all.last, seen.last);
  }
  return all;
}

// Calls body(head's keys, token in the block, token in the chunk, how many) for each kv block that
// holds some of the tokens [begin, end) of the chunk, with all that it holds of the chunk.
template <class Body>
HWY_INLINE void for_blocks(const Attend& args, const AttendTile& tile, int chunk, int begin,
                           int end, Body body) {
  const KvLayer& kv = args.kv;
  const int start = chunk * kChunkTokens;
  for (int j = begin; j < end;) {
    const int block = (start + j) / kv.block_tokens, block_start = block * kv.block_tokens;
    const int from = max_of(block_start, start);
    const int to = min_of(block_start + kv.block_tokens, start + kChunkTokens);
    body(kv.blocks + tile.blocks[block] * kv.block_bytes + tile.kv_head * kv.head_bytes,
         from - block_start, from - start, to - from);
    j = to - start;
  }
}

// Adds the chunk's values to the sums. Queries that see the same of it share the loads.
template <class Stored>
HWY_INLINE void add_values(const Queries& t, int queries, int row, int start,
                           const typename Stored::Element* const* values, Ahead& ahead) {
  const auto from = [&](int i) { return max_of(t.first[i] - start, 0); };
  const auto to = [&](int i) { return min_of(t.last[i] - start, kChunkTokens); };
  for (int i = 0; i < queries;) {
    int same = 1;
    while (same < kTogether && i + same < queries && from(i + same) == from(i) &&
           to(i + same) == to(i)) {
      ++same;
    }
    if (from(i) >= to(i)) {
      i += same;
    } else if (same == kTogether) {
      ahead.ask();
      add_chunk<Stored, kTogether>(t, i, row, from(i), to(i), values);
      i += kTogether;
    } else {
      add_chunk<Stored, 1>(t, i, row, from(i), to(i), values);
      ++i;
    }
  }
}

template <class Stored>
HWY_INLINE void attend_chunk(const Attend& args, const AttendTile& tile, const Queries& t,
                             int queries, int chunk, Seen seen) {
  using Kv = KvRows<Stored>;
  const KvLayer& kv = args.kv;
  const int start = chunk * kChunkTokens;
  const int low = max_of(seen.first - start, 0), high = min_of(seen.last - start, kChunkTokens);
  for_blocks(args, tile, chunk, low, high,
             [&](const std::byte* keys, int token, int at, int count) {
               Kv::unpack_keys(keys, kv, token, count, t.keys + at);
             });
  Ahead ahead;
  for_blocks(args, tile, chunk + 1, 0, min_of(seen.last - start - kChunkTokens, kChunkTokens),
             [&](const std::byte* keys, int, int, int) {
               ahead.parts[ahead.count++] = keys;
               ahead.parts[ahead.count++] = keys + kv.half_bytes;
             });
  ahead.part_bytes = kv.head_bytes;
  // It is asked about so often: once a query, and twice for kTogether of them.
  ahead.step = ahead.count * kv.head_bytes / (queries + queries / 2) + 64;
  score_chunk(t, queries, kv.row, low, high, ahead);
  for (int i = 0; i < queries; ++i) {
    const int from = max_of(t.first[i] - start, 0), to = min_of(t.last[i] - start, kChunkTokens);
    ahead.ask();
    if (from < to) weigh_chunk(args, t, i, from, to);
  }
  if constexpr (Kv::kLoadsRows) {
    if (queries <= kFewQueries) {
      const typename Stored::Element* values[kChunkTokens];
      for_blocks(args, tile, chunk, low, high,
                 [&](const std::byte* keys, int token, int at, int count) {
                   for (int j = 0; j < count; ++j) {
                     values[at + j] = Kv::value_of(keys + kv.half_bytes, kv, token + j);
                   }
                 });
      add_values<Stored>(t, queries, kv.row, start, values, ahead);
      return;
    }
  }
  const float* values[kChunkTokens];
  for (int j = 0; j < kChunkTokens; ++j) values[j] = t.values + j * kv.row;
  for_blocks(args, tile, chunk, low, high,
             [&](const std::byte* keys, int token, int at, int count) {
               Kv::unpack_values(keys + kv.half_bytes, kv, token, count, t.values + at * kv.row);
             });
  add_values<StoredF32>(t, queries, kv.row, start, values, ahead);
}

template <class Stored>
HWY_NOINLINE void attend_piece(const Attend& args, const AttendTile& tile, int32_t piece,
                               float* state, float* scratch) {
  const int queries = tile.rows * (args.heads / args.kv_heads);
  const Queries t = split_scratch(scratch, state, queries, args.kv.row);
  const Seen seen = start_queries(args, tile, piece, t);
  for (int chunk = seen.first / kChunkTokens; chunk * kChunkTokens < seen.last; ++chunk) {
    attend_chunk<Stored>(args, tile, t, queries, chunk, seen);
  }
}

// A query's first piece is taken as it is, and those of which it sees nothing change nothing: what
// comes out does not depend on the tile.
HWY_NOINLINE void merge_piece(const Attend& args, const AttendTile& tile, int32_t piece,
                              const float* state, float* sum) {
  const int group = args.heads / args.kv_heads, queries = tile.rows * group, n = args.kv.row;
  const State from = state_at(const_cast<float*>(state), queries, n);
  const State to = state_at(sum, queries, n);
  for (int i = 0; i < queries; ++i) {
    const Seen all = seen_by(args, tile.first_row + i / group), seen = within(all, piece);
    if (seen.first >= seen.last) continue;
    const float* x = from.sums + int64_t{i} * n;
    float* y = to.sums + int64_t{i} * n;
    if (seen.first == all.first) {
      __builtin_memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
      to.tops[i] = from.tops[i];
      to.totals[i] = from.totals[i];
      continue;
    }
    const Vec top = hn::Max(set(from.tops[i]), set(to.tops[i]));
    const Vec shrink = exp(hn::Sub(set(to.tops[i]), top));
    const Vec factor = exp(hn::Sub(set(from.tops[i]), top));
    for (int d = 0; d < n; d += kLanes) {
      store(hn::MulAdd(load(x + d), factor, hn::Mul(load(y + d), shrink)), y + d);
    }
    to.totals[i] =
        hn::GetLane(hn::MulAdd(set(from.totals[i]), factor, hn::Mul(set(to.totals[i]), shrink)));
    to.tops[i] = hn::GetLane(top);
  }
}

HWY_NOINLINE void finish_attend(const Attend& args, const AttendTile& tile, const float* sum) {
  const int group = args.heads / args.kv_heads, queries = tile.rows * group;
  const State from = state_at(const_cast<float*>(sum), queries, args.kv.row);
  for (int i = 0; i < queries; ++i) {
    const int row = tile.first_row + i / group, head = tile.kv_head * group + i % group;
    float* out = args.out + (int64_t{row} * args.heads + head) * args.head_dim;
    const float* sums = from.sums + int64_t{i} * args.kv.row;
    if (args.slots[row] < 0) {
      for (int d = 0; d < args.head_dim; ++d) out[d] = 0;
    } else {
      const float factor = 1 / from.totals[i];
      for (int d = 0; d < args.head_dim; ++d) out[d] = sums[d] * factor;
    }
  }
}

template <class Stored>
void attend(const Attend& args, const AttendTile& tile, float* scratch) {
  const int64_t queries = int64_t{tile.rows} * (args.heads / args.kv_heads);
  float* sum = scratch;
  float* state = sum + queries * (args.kv.row + 2);
  float* rest = state + queries * (args.kv.row + 2);
  for (int piece = tile.first_piece; piece < tile.end_piece; ++piece) {
    const bool alone = tile.end_piece - tile.first_piece == 1;
    attend_piece<Stored>(args, tile, piece, alone ? sum : state, rest);
    if (!alone) merge_piece(args, tile, piece, state, sum);
  }
  finish_attend(args, tile, sum);
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
