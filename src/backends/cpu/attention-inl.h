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
  float* keys;     // [kv.row][kChunkTokens]: the chunk's, turned so that tokens lie side by side
  float* tops;     // [queries]: highest score so far
  float* totals;   // [queries]: sum of weights so far
  float* shrinks;  // [queries]: the factor for what was summed before this chunk
  int32_t* first;  // [queries]: positions that it sees, first ..
  int32_t* last;   // .. to last - 1
};

HWY_INLINE Queries split_scratch(float* scratch, int queries, int row) {
  Queries t;
  const int64_t whole = static_cast<int64_t>(queries) * row;
  t.q = scratch;
  t.sums = t.q + whole;
  t.scores = t.sums + whole;
  t.keys = t.scores + static_cast<int64_t>(queries) * kChunkTokens;
  t.tops = t.keys + static_cast<int64_t>(row) * kChunkTokens;
  t.totals = t.tops + queries;
  t.shrinks = t.totals + queries;
  t.first = reinterpret_cast<int32_t*>(t.shrinks + queries);
  t.last = t.first + queries;
  return t;
}

// Queries and vectors whose sums are in registers together.
constexpr int kTogether = 4;
constexpr int kSumVectors = HWY_ARCH_ARM || HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// Four tokens' elements d .. d + kLanes - 1: from four rows to kLanes columns of four.
HWY_INLINE void turn_four(const Vec (&rows)[4], float* to) {
  const hn::Repartition<uint64_t, F32> pairs;
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(F32(), rows[0], rows[1]));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(F32(), rows[2], rows[3]));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(F32(), rows[0], rows[1]));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(F32(), rows[2], rows[3]));
  // Column c of every block of four elements.
  float columns[4][kLanes];
  store(hn::BitCast(F32(), hn::InterleaveLower(pairs, low01, low23)), columns[0]);
  store(hn::BitCast(F32(), hn::InterleaveUpper(pairs, low01, low23)), columns[1]);
  store(hn::BitCast(F32(), hn::InterleaveLower(pairs, high01, high23)), columns[2]);
  store(hn::BitCast(F32(), hn::InterleaveUpper(pairs, high01, high23)), columns[3]);
  for (int block = 0; block < kLanes; block += 4) {
    for (int c = 0; c < 4; ++c) {
      __builtin_memcpy(to + (block + c) * kChunkTokens, columns[c] + block, 4 * sizeof(float));
    }
  }
}

// Turned, queries meet many keys at once, and nothing is summed across lanes.
template <class Stored>
HWY_INLINE void turn_keys(const typename Stored::Element* const* keys, int begin, int end, int row,
                          float* turned) {
  for (int j = begin / 4 * 4; j < end; j += 4) {
    for (int d = 0; d < row; d += kLanes) {
      const Vec rows[4] = {Stored::load_row(keys[j] + d), Stored::load_row(keys[j + 1] + d),
                           Stored::load_row(keys[j + 2] + d), Stored::load_row(keys[j + 3] + d)};
      turn_four(rows, turned + d * kChunkTokens + j);
    }
  }
}

// Dot products of N queries with kSumVectors vectors of keys, each in the order of its elements.
template <int N>
HWY_INLINE void score_some(const float* q, int row, const float* turned, float* scores) {
  Vec acc[N][kSumVectors];
  for (int i = 0; i < N; ++i) {
    for (int v = 0; v < kSumVectors; ++v) acc[i][v] = zero();
  }
  for (int d = 0; d < row; ++d) {
    Vec k[kSumVectors];
    for (int v = 0; v < kSumVectors; ++v) k[v] = load(turned + d * kChunkTokens + v * kLanes);
    for (int i = 0; i < N; ++i) {
      const Vec x = set(q[i * row + d]);
      for (int v = 0; v < kSumVectors; ++v) acc[i][v] = hn::MulAdd(x, k[v], acc[i][v]);
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int v = 0; v < kSumVectors; ++v) store(acc[i][v], scores + i * kChunkTokens + v * kLanes);
  }
}

HWY_INLINE void score_chunk(const Queries& t, int queries, int row, int begin, int end) {
  constexpr int kTokens = kSumVectors * kLanes;
  static_assert(kChunkTokens % kTokens == 0);
  for (int j = begin / kTokens * kTokens; j < end; j += kTokens) {
    int i = 0;
    for (; i + kTogether <= queries; i += kTogether) {
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
  t.shrinks[i] = shrink;
}

// sums = sums * shrink + weights times values, of N queries and V vectors of the head at once.
template <class Stored, int N, int V>
HWY_INLINE void add_some(const Queries& t, int first, int row, int begin, int end, int d,
                         const typename Stored::Element* const* values) {
  const float* weights = t.scores + int64_t{first} * kChunkTokens;
  float* sums = t.sums + int64_t{first} * row + d;
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

// Where the keys and values of a chunk's tokens [begin, end) lie; keys up to the next four are
// filled with a neighbour's, as they are turned by fours.
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
    turn_keys<Stored>(keys, low, high, args.kv.row, t.keys);
    score_chunk(t, queries, args.kv.row, low, high);
    const auto from = [&](int i) { return max_of(t.first[i] - start, 0); };
    const auto to = [&](int i) { return min_of(t.last[i] - start, kChunkTokens); };
    for (int i = 0; i < queries; ++i) {
      if (from(i) < to(i)) weigh_chunk(args, t, i, from(i), to(i));
    }
    for (int i = 0; i < queries;) {
      int same = 1;
      while (same < kTogether && i + same < queries && from(i + same) == from(i) &&
             to(i + same) == to(i)) {
        ++same;
      }
      if (from(i) >= to(i)) {
        i += same;
      } else if (same == kTogether) {
        add_chunk<Stored, kTogether>(t, i, args.kv.row, from(i), to(i), values);
        i += kTogether;
      } else {
        add_chunk<Stored, 1>(t, i, args.kv.row, from(i), to(i), values);
        ++i;
      }
    }
  }
  finish_queries(args, tile, t);
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
