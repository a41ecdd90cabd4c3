// Attention beside a kv cache in f32: the exact arithmetic, by fmaf in the order of elements and of
// tokens. A block takes kPairs pairs of a row and a query head, a warp some of them; a tile's keys,
// then its values, lie in shared memory.
#include "backends/cuda/attention_parts.h"
#include "backends/cuda/launch.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

constexpr int kWarps = 4, kWarpPairs = 4, kPairs = kWarps * kWarpPairs, kThreads = kWarps * kWarp;

// Rows of a tile are so far apart that eight lanes which read 16 bytes of a row each meet no bank
// twice.
template <int D>
constexpr int kTileStride = D + 4;

struct Shared {
  float* q;     // [kPairs][D]
  float* tile;  // [kTileTokens][kTileStride]
};

template <int D>
constexpr size_t kSharedBytes = sizeof(float) * (kPairs * D + kTileTokens * kTileStride<D>);

// Brings the block's keys or values of a tile; zeros where nobody sees any.
template <int D>
__device__ void load_tile(const TileArgs& a, const Shared& shared, int sequence, int tile,
                          const Span& span, bool value) {
  constexpr int kChunks = D / 4;  // of 16 bytes
  for (int i = static_cast<int>(threadIdx.x); i < kTileTokens * kChunks; i += kThreads) {
    const int token = i / kChunks, chunk = i % kChunks;
    const Place place = place_of(a, sequence, tile * kTileTokens + token, span);
    const bool there = place.block >= 0 && chunk * 4 < a.kv.row_elements;
    const int64_t keys = keys_at(a.kv, place.block, place.token, static_cast<int>(blockIdx.x));
    const int64_t from = there ? keys + (value ? a.kv.values_at : 0) + chunk * 16 : 0;
    copy_async_16(shared.tile + token * kTileStride<D> + chunk * 4, a.blocks + from, there);
  }
  copy_async_commit();
  copy_async_wait<0>();
  sync_block();
}

// What a warp knows of its pairs.
template <int D>
struct Pairs {
  int position[kWarpPairs];  // -1: none
  RowState state[kWarpPairs];
  float sums[kWarpPairs][D / kWarp];  // of elements lane + 32 i
  float weights[kWarpPairs][2];       // of tokens lane and lane + 32
};

template <int D>
__device__ void reset(Pairs<D>& pairs) {
#pragma unroll
  for (int p = 0; p < kWarpPairs; ++p) {
    pairs.state[p] = {-INFINITY, 0};
#pragma unroll
    for (int i = 0; i < D / kWarp; ++i) pairs.sums[p][i] = 0;
  }
}

// Dot products of the warp's pairs with tokens lane and lane + 32.
template <int D>
__device__ void score(const TileArgs& a, const Shared& shared, Pairs<D>& pairs, int tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const auto* const keys = reinterpret_cast<const float4*>(shared.tile + lane * kTileStride<D>);
  const auto* const q = reinterpret_cast<const float4*>(shared.q + warp * kWarpPairs * D);
  float dots[kWarpPairs][2] = {};
  for (int i = 0; i < D / 4; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 k = keys[half * (kWarp * kTileStride<D> / 4) + i];
#pragma unroll
      for (int p = 0; p < kWarpPairs; ++p) {
        const float4 x = q[p * (D / 4) + i];
        float& dot = dots[p][half];
        dot = fmaf(x.w, k.w, fmaf(x.z, k.z, fmaf(x.y, k.y, fmaf(x.x, k.x, dot))));
      }
    }
  }
#pragma unroll
  for (int p = 0; p < kWarpPairs; ++p) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = tile * kTileTokens + half * kWarp + lane;
      const int last = pairs.position[p];
      const bool seen = token <= last && token >= first_seen(last, a.window);
      float s = dots[p][half] * a.score_factor;
      if (a.cap > 0) s = a.cap * tanhf(s);
      pairs.weights[p][half] = seen ? s : -INFINITY;
    }
  }
}

// Scores become weights; the tile's sums are added to the state.
template <int D>
__device__ void add_values(const Shared& shared, Pairs<D>& pairs) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int p = 0; p < kWarpPairs; ++p) {
    if (pairs.position[p] < 0) continue;
    float(&weights)[2] = pairs.weights[p];
    const float top = warp_max(fmaxf(weights[0], weights[1]));
    const float base = top == -INFINITY ? 0 : top;
    weights[0] = exp2_approx(weights[0] - base);
    weights[1] = exp2_approx(weights[1] - base);
    float total = 0, sums[D / kWarp] = {};
    for (int token = 0; token < kTileTokens; ++token) {
      const float weight = shuffle(token < kWarp ? weights[0] : weights[1], token % kWarp);
      if (weight == 0) continue;  // a value that the row does not see may be a NaN
      total += weight;
#pragma unroll
      for (int i = 0; i < D / kWarp; ++i) {
        const float v = shared.tile[token * kTileStride<D> + lane + i * kWarp];
        sums[i] = fmaf(weight, v, sums[i]);
      }
    }
    const Factors factors = weigh(pairs.state[p].top, top, &pairs.state[p].top);
    pairs.state[p].total = add_weighed(pairs.state[p].total, total, factors);
#pragma unroll
    for (int i = 0; i < D / kWarp; ++i) {
      pairs.sums[p][i] = add_weighed(pairs.sums[p][i], sums[i], factors);
    }
  }
}

template <int D>
__device__ void store_state(const TileArgs& a, const RowTile& rows, const Pairs<D>& pairs,
                            int tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int p = 0; p < kWarpPairs; ++p) {
    const int last = pairs.position[p];
    const int first_tile = first_seen(last, a.window) / kTileTokens;
    if (last < 0 || tile < first_tile || tile > last / kTileTokens) continue;
    const int pair = rows.first_pair + warp * kWarpPairs + p;
    const int local = pair / a.group;
    const int head = static_cast<int>(blockIdx.x) * a.group + pair % a.group;
    const int64_t index =
        state_index(a, rows.sequence, local, rows.first_row + local, head) + tile - first_tile;
    float* const state = a.states + index * (D + kStateExtra);
#pragma unroll
    for (int i = 0; i < D / kWarp; ++i) state[lane + i * kWarp] = pairs.sums[p][i];
    if (lane == 0) {
      state[D] = pairs.state[p].top;
      state[D + 1] = pairs.state[p].total;
    }
  }
}

template <int D>
__device__ void store_rows(const TileArgs& a, const RowTile& rows, const Pairs<D>& pairs) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int p = 0; p < kWarpPairs; ++p) {
    if (pairs.position[p] < 0) continue;
    const int pair = rows.first_pair + warp * kWarpPairs + p;
    const int head = static_cast<int>(blockIdx.x) * a.group + pair % a.group;
    const float factor = reciprocal_approx(pairs.state[p].total);
#pragma unroll
    for (int i = 0; i < D / kWarp; ++i) {
      const int d = lane + i * kWarp;
      if (d >= a.head_dim) continue;
      put(a.out, rows.first_row + pair / a.group, head * a.head_dim + d, pairs.sums[p][i] * factor);
    }
  }
}

template <int D>
__device__ void load_queries(const TileArgs& a, const RowTile& rows, const Shared& shared,
                             Pairs<D>& pairs) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const auto* const q = static_cast<const float*>(a.q);
  for (int i = static_cast<int>(threadIdx.x); i < kPairs * D; i += kThreads) {
    const int pair = rows.first_pair + i / D;
    const int64_t row = rows.first_row + pair / a.group;
    const int head = static_cast<int>(blockIdx.x) * a.group + pair % a.group;
    shared.q[i] = pair < rows.end_pair ? q[(row * a.heads + head) * D + i % D] : 0;
  }
#pragma unroll
  for (int p = 0; p < kWarpPairs; ++p) {
    const int pair = rows.first_pair + warp * kWarpPairs + p;
    const int row = rows.first_row + pair / a.group;
    pairs.position[p] = pair < rows.end_pair && a.slots[row] >= 0 ? a.positions[row] : -1;
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads) attend(TileArgs a) {
  allow_next();
  RowTile rows;
  Span span;
  const TileRange range = find_work(a, kPairs, &rows, &span);
  wait_for_previous();
  if (range.begin >= range.end) return;
  float* const memory = dynamic_shared<float>();
  const Shared shared = {memory, memory + kPairs * D};
  Pairs<D> pairs;
  load_queries(a, rows, shared, pairs);
  reset(pairs);
  for (int tile = range.begin; tile < range.end; ++tile) {
    load_tile<D>(a, shared, rows.sequence, tile, span, false);
    score<D>(a, shared, pairs, tile);
    sync_block();
    load_tile<D>(a, shared, rows.sequence, tile, span, true);
    add_values<D>(shared, pairs);
    sync_block();
    if (a.way.splits == 1) continue;
    store_state<D>(a, rows, pairs, tile);
    reset(pairs);
  }
  if (a.way.splits == 1) store_rows<D>(a, rows, pairs);
}

template <int D>
void start(const Gpu& gpu, const TileArgs& args) {
  launch<attend<D>>(gpu, grid_of(args, kThreads, kSharedBytes<D>), args);
}

}  // namespace

int f32_pairs() { return kPairs; }

void attend_f32(const Gpu& gpu, int d, const TileArgs& args) {
  switch (d) {
    case 32:
      return start<32>(gpu, args);
    case 64:
      return start<64>(gpu, args);
    case 96:
      return start<96>(gpu, args);
    case 128:
      return start<128>(gpu, args);
    default:
      return start<256>(gpu, args);
  }
}

}  // namespace llorch::cuda
