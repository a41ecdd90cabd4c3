// Attention over paged kv. A row meets its tokens in chunks of kChunkTokens on a grid fixed by
// position, each chunk in one order, so its result does not depend on the tile, the other rows or
// the size of the kv blocks.
#pragma once

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
HWY_INLINE void store_head(const float* from, int n, typename Stored::Element* to) {
  for (int i = 0; i < n; i += kLanes) Stored::store_row(load(from + i), to + i);
}

template <class Stored>
void write_kv(const Attend& args, int32_t first, int32_t last, float* scratch) {
  using Element = typename Stored::Element;
  const KvLayer& kv = args.kv;
  for (int row = first; row < last; ++row) {
    const int slot = args.slots[row];
    if (slot < 0) continue;
    const float* keys = args.qkv + row * qkv_cols(args) + int64_t{args.heads} * args.head_dim;
    const float* values = keys + int64_t{args.kv_heads} * args.head_dim;
    std::byte* block = kv.blocks + slot / kv.block_tokens * kv.block_bytes;
    for (int h = 0; h < args.kv_heads; ++h) {
      const int64_t at = (int64_t{h} * kv.block_tokens + slot % kv.block_tokens) * kv.row;
      prepare_head(args, row, keys + int64_t{h} * args.head_dim, args.k_norm, scratch);
      store_head<Stored>(scratch, kv.row, reinterpret_cast<Element*>(block) + at);
      const float* value = values + int64_t{h} * args.head_dim;
      for (int i = 0; i < kv.row; ++i) scratch[i] = i < args.head_dim ? value[i] : 0;
      store_head<Stored>(scratch, kv.row, reinterpret_cast<Element*>(block + kv.half_bytes) + at);
    }
  }
}

// What a tile knows of its queries; `queries` of them, row by row, head by head.
struct Queries {
  float* q;        // [queries][kv.row]
  float* sums;     // [queries][kv.row]: weighted values so far
  float* scores;   // [queries][kChunkTokens]
  float* tops;     // [queries]: highest score so far
  float* totals;   // [queries]: sum of weights so far
  int32_t* first;  // [queries]: positions that it sees, first ..
  int32_t* last;   // .. to last - 1
};

HWY_INLINE Queries split_scratch(float* scratch, int queries, int row) {
  Queries t;
  const int64_t whole = static_cast<int64_t>(queries) * row;
  t.q = scratch;
  t.sums = t.q + whole;
  t.scores = t.sums + whole;
  t.tops = t.scores + static_cast<int64_t>(queries) * kChunkTokens;
  t.totals = t.tops + queries;
  t.first = reinterpret_cast<int32_t*>(t.totals + queries);
  t.last = t.first + queries;
  return t;
}

// Dot products of N queries with four keys.
template <class Stored, int N>
HWY_INLINE void score_four(const float* q, int row, const typename Stored::Element* const* keys,
                           float* scores) {
  Vec acc[N][4];
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < 4; ++j) acc[i][j] = zero();
  }
  for (int d = 0; d < row; d += kLanes) {
    Vec k[4];
    for (int j = 0; j < 4; ++j) k[j] = Stored::load_row(keys[j] + d);
    for (int i = 0; i < N; ++i) {
      const Vec x = load(q + i * row + d);
      for (int j = 0; j < 4; ++j) acc[i][j] = hn::MulAdd(x, k[j], acc[i][j]);
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < 4; ++j) scores[i * kChunkTokens + j] = sum_lanes(acc[i][j]);
  }
}

template <class Stored>
HWY_INLINE void score_chunk(const Queries& t, int queries, int row, int begin, int end,
                            const typename Stored::Element* const* keys) {
  for (int j = begin / 4 * 4; j < end; j += 4) {
    int i = 0;
    for (; i + 2 <= queries; i += 2) {
      score_four<Stored, 2>(t.q + int64_t{i} * row, row, keys + j, t.scores + i * kChunkTokens + j);
    }
    if (i < queries) {
      score_four<Stored, 1>(t.q + int64_t{i} * row, row, keys + j, t.scores + i * kChunkTokens + j);
    }
  }
}

// Turns a query's scores of tokens [begin, end) of the chunk into weights, all others into zeros.
// Returns the factor by which what was summed before shrinks.
HWY_INLINE float weigh_chunk(const Attend& args, const Queries& t, int i, int begin, int end) {
  float* scores = t.scores + int64_t{i} * kChunkTokens;
  Vec top = set(t.tops[i]);
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
  const float shrink = hn::GetLane(exp(hn::Sub(set(t.tops[i]), top)));
  t.tops[i] = hn::GetLane(top);
  t.totals[i] = t.totals[i] * shrink + sum_lanes(total);
  return shrink;
}

// sums = sums * shrink + weights times values, N vectors of the head at once.
template <class Stored, int N>
HWY_INLINE void add_values(const float* weights, int begin, int end, float shrink, int d,
                           const typename Stored::Element* const* values, float* sums) {
  Vec acc[N];
  for (int v = 0; v < N; ++v) acc[v] = hn::Mul(load(sums + d + v * kLanes), set(shrink));
  for (int j = begin; j < end; ++j) {
    const Vec w = set(weights[j]);
    for (int v = 0; v < N; ++v) {
      acc[v] = hn::MulAdd(w, Stored::load_row(values[j] + d + v * kLanes), acc[v]);
    }
  }
  for (int v = 0; v < N; ++v) store(acc[v], sums + d + v * kLanes);
}

template <class Stored>
HWY_INLINE void add_chunk(const Queries& t, int i, int row, int begin, int end, float shrink,
                          const typename Stored::Element* const* values) {
  const float* weights = t.scores + int64_t{i} * kChunkTokens;
  float* sums = t.sums + int64_t{i} * row;
  int d = 0;
  for (; d + 8 * kLanes <= row; d += 8 * kLanes) {
    add_values<Stored, 8>(weights, begin, end, shrink, d, values, sums);
  }
  for (; d + 2 * kLanes <= row; d += 2 * kLanes) {
    add_values<Stored, 2>(weights, begin, end, shrink, d, values, sums);
  }
  for (; d < row; d += kLanes) {
    add_values<Stored, 1>(weights, begin, end, shrink, d, values, sums);
  }
}

// Where the keys and values of a chunk's tokens [begin, end) lie; four more beside them are filled
// with a neighbour's, as scores are made by fours.
template <class Element>
HWY_INLINE void find_tokens(const Attend& args, const AttendTile& tile, int chunk, int begin,
                            int end, const Element** keys, const Element** values) {
  const KvLayer& kv = args.kv;
  for (int j = begin; j < end; ++j) {
    const int position = chunk * kChunkTokens + j;
    const std::byte* block = kv.blocks + tile.blocks[position / kv.block_tokens] * kv.block_bytes;
    const int64_t at =
        (int64_t{tile.kv_head} * kv.block_tokens + position % kv.block_tokens) * kv.row;
    keys[j] = reinterpret_cast<const Element*>(block) + at;
    values[j] = reinterpret_cast<const Element*>(block + kv.half_bytes) + at;
  }
  for (int j = begin / 4 * 4; j < begin; ++j) keys[j] = keys[begin];
  for (int j = end; j % 4 != 0; ++j) keys[j] = keys[end - 1];
}

// Loads the tile's queries. Returns how many positions there are up to the last that one sees.
HWY_INLINE int start_queries(const Attend& args, const AttendTile& tile, const Queries& t,
                             int* first) {
  const int group = args.heads / args.kv_heads;
  int end = 0;
  *first = 0x7fffffff;
  for (int i = 0; i < tile.rows * group; ++i) {
    const int row = tile.first_row + i / group, head = tile.kv_head * group + i % group;
    prepare_head(args, row, args.qkv + row * qkv_cols(args) + int64_t{head} * args.head_dim,
                 args.q_norm, t.q + int64_t{i} * args.kv.row);
    for (int d = 0; d < args.kv.row; ++d) t.sums[int64_t{i} * args.kv.row + d] = 0;
    t.tops[i] = kLowest;
    t.totals[i] = 0;
    const bool padding = args.slots[row] < 0;
    t.last[i] = padding ? 0 : args.positions[row] + 1;
    t.first[i] = padding || args.window == 0 ? 0 : max_of(0, t.last[i] - args.window);
    if (padding) continue;
    end = max_of(end, t.last[i]);
    *first = min_of(*first, t.first[i]);
  }
  return end;
}

HWY_INLINE void finish_queries(const Attend& args, const AttendTile& tile, const Queries& t) {
  const int group = args.heads / args.kv_heads;
  for (int i = 0; i < tile.rows * group; ++i) {
    const int64_t row = tile.first_row + i / group, head = tile.kv_head * group + i % group;
    float* out = args.out + (row * args.heads + head) * args.head_dim;
    const float* sums = t.sums + int64_t{i} * args.kv.row;
    const float factor = t.last[i] == 0 ? 0 : 1 / t.totals[i];
    for (int d = 0; d < args.head_dim; ++d) out[d] = sums[d] * factor;
  }
}

template <class Stored>
void attend(const Attend& args, const AttendTile& tile, float* scratch) {
  using Element = typename Stored::Element;
  const int queries = tile.rows * (args.heads / args.kv_heads);
  const Queries t = split_scratch(scratch, queries, args.kv.row);
  int first;
  const int end = start_queries(args, tile, t, &first);
  const Element* keys[kChunkTokens];
  const Element* values[kChunkTokens];
  for (int chunk = first / kChunkTokens; chunk * kChunkTokens < end; ++chunk) {
    const int start = chunk * kChunkTokens;
    const int low = max_of(first - start, 0), high = min_of(end - start, kChunkTokens);
    find_tokens(args, tile, chunk, low, high, keys, values);
    score_chunk<Stored>(t, queries, args.kv.row, low, high, keys);
    for (int i = 0; i < queries; ++i) {
      const int from = max_of(t.first[i] - start, 0), to = min_of(t.last[i] - start, kChunkTokens);
      if (from >= to) continue;
      const float shrink = weigh_chunk(args, t, i, from, to);
      add_chunk<Stored>(t, i, args.kv.row, from, to, shrink, values);
    }
  }
  finish_queries(args, tile, t);
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
