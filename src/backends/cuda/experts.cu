// Mixtures of experts: which rows go to which expert, and what comes back from them.
#include "backends/cuda/rows.h"
#include "backends/cuda/warp_code.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

// ---- route: a warp chooses for a row; then one block sorts all pairs of a row and an expert

constexpr int32_t kMostExperts = 256, kMostChosen = 32;
constexpr int kEach = kMostExperts / kWarp;  // experts of a lane: those of its number modulo 32
constexpr int32_t kFewRows = 32;             // are chosen for and sorted by one kernel
constexpr int kChooseWarps = 8, kSortWarps = 32;

struct RouteParams {
  const float* logits;
  int32_t m, count, top_k;
  bool renormalize;
  int32_t *start, *rows, *places;
  float* weights;
};

// What a lane knows of a row.
struct OwnExperts {
  float logit[kEach];
  uint32_t key[kEach];  // 0: chosen, or not there; 1: not a number
  uint32_t chosen;      // a bit for each
};

__device__ uint32_t lanes_below() { return (1u << lane_of_thread()) - 1; }

// Chooses the best expert that is left, and tells its key.
__device__ uint32_t choose_next(OwnExperts* own) {
  Best best{0, 0};
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (own->key[i] > best.key) best = {own->key[i], i * kWarp + lane_of_thread()};
  }
  best = warp_best(best);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (best.index != i * kWarp + lane_of_thread()) continue;
    own->key[i] = 0;
    own->chosen |= 1u << i;
  }
  return best.key;
}

// Writes the top_k experts of a row to `experts`, in ascending order, and their weights.
__device__ void choose_experts(const RouteParams& p, int32_t row, int32_t* experts) {
  OwnExperts own{};
  const float* const logits = p.logits + int64_t{row} * p.count;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int32_t expert = i * kWarp + lane_of_thread();
    own.logit[i] = expert < p.count ? logits[expert] : 0.0f;
    const bool number = own.logit[i] == own.logit[i];
    own.key[i] = expert >= p.count ? 0 : number ? key_of(own.logit[i]) : 1;
  }
  float top = 0;
#pragma unroll 1
  for (int32_t k = 0; k < p.top_k; ++k) {
    const uint32_t key = choose_next(&own);
    if (k == 0) top = float_of_key(key);
  }
  float total = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const bool chosen = own.chosen >> i & 1;
    const bool counts = i * kWarp + lane_of_thread() < p.count && (chosen || !p.renormalize);
    own.logit[i] = counts ? expf(own.logit[i] - top) : 0.0f;
    total = total + own.logit[i];
  }
  const float share = 1.0f / warp_sum(total);
  int32_t before = row * p.top_k;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const bool chosen = own.chosen >> i & 1;
    const uint32_t votes = ballot(chosen);
    if (chosen) {
      const int32_t at = before + __popc(votes & lanes_below());
      experts[at] = i * kWarp + lane_of_thread();
      p.weights[at] = own.logit[i] * share;
    }
    before += __popc(votes);
  }
}

// How many of the pairs of each expert come before those that a warp meets next.
struct SortShared {
  uint32_t start[kMostExperts];
  uint32_t before[kSortWarps][kMostExperts];
};

// action(pair, expert, lanes with the same one) for a warp's share of the pairs, 32 at a time.
template <class Action>
__device__ void for_own_pairs(const RouteParams& p, const int32_t* experts, Action action) {
  const int32_t pairs = p.m * p.top_k, warps = block_threads() / kWarp;
  const int32_t steps = (pairs + warps * kWarp - 1) / (warps * kWarp);
  const int32_t first = warp_of_thread() * steps * kWarp + lane_of_thread();
  int32_t next = first < pairs ? experts[first] : -1;
#pragma unroll 1
  for (int32_t i = 0; i < steps; ++i) {
    const int32_t pair = first + i * kWarp, expert = next;
    if (i + 1 < steps) next = pair + kWarp < pairs ? experts[pair + kWarp] : -1;
    action(pair, expert, equal_lanes(static_cast<uint32_t>(expert)));
  }
}

// Stable: pairs of an expert stay in the order of rows. `experts` may be p.places.
__device__ void sort_pairs(const RouteParams& p, const int32_t* experts, SortShared* shared) {
  const auto own = static_cast<int32_t>(threadIdx.x);
  const int32_t threads = block_threads(), warps = threads / kWarp;
  uint32_t* const before = shared->before[warp_of_thread()];
#pragma unroll 1
  for (int32_t i = lane_of_thread(); i < p.count; i += kWarp) before[i] = 0;
  sync_warp();
  const auto count_lanes = [before](int32_t expert, uint32_t lanes) {
    sync_warp();
    if (expert >= 0 && (lanes & lanes_below()) == 0) {
      before[expert] += static_cast<uint32_t>(__popc(lanes));
    }
    sync_warp();
  };
  for_own_pairs(p, experts,
                [&](int32_t, int32_t expert, uint32_t lanes) { count_lanes(expert, lanes); });
  sync_block();
#pragma unroll 1
  for (int32_t expert = own; expert < p.count; expert += threads) {
    uint32_t sum = 0;
#pragma unroll 4
    for (int32_t w = 0; w < warps; ++w) {
      const uint32_t of_warp = shared->before[w][expert];
      shared->before[w][expert] = sum;
      sum += of_warp;
    }
    shared->start[expert] = sum;
  }
  sync_block();
  if (warp_of_thread() == 0) {  // sums become starts
    uint32_t sum = 0;
#pragma unroll 1
    for (int32_t i = 0; i < p.count; i += kWarp) {
      const int32_t expert = i + lane_of_thread();
      const uint32_t of_expert = expert < p.count ? shared->start[expert] : 0;
      const auto up_to = static_cast<uint32_t>(warp_prefix_sum(of_expert));
      if (expert < p.count) {
        shared->start[expert] = sum + up_to - of_expert;
        p.start[expert] = static_cast<int32_t>(sum + up_to - of_expert);
      }
      sum += shuffle(up_to, kWarp - 1);
    }
    if (lane_of_thread() == 0) p.start[p.count] = static_cast<int32_t>(sum);
  }
  sync_block();
  for_own_pairs(p, experts, [&](int32_t pair, int32_t expert, uint32_t lanes) {
    if (expert >= 0) {
      const auto place = static_cast<int32_t>(shared->start[expert] + before[expert]) +
                         __popc(lanes & lanes_below());
      p.rows[place] = pair / p.top_k;
      p.places[pair] = place;
    }
    count_lanes(expert, lanes);
  });
}

__global__ void __launch_bounds__(kSortWarps* kWarp) route_few_rows(RouteParams p) {
  __shared__ int32_t experts[kFewRows * kMostChosen];
  allow_next();
  wait_for_previous();
  if (warp_of_thread() < p.m) choose_experts(p, warp_of_thread(), experts);
  sync_block();
  sort_pairs(p, experts, dynamic_shared<SortShared>());
}

__global__ void __launch_bounds__(kChooseWarps* kWarp) choose_of_rows(RouteParams p) {
  allow_next();
  wait_for_previous();
  const int32_t row = static_cast<int32_t>(blockIdx.x) * kChooseWarps + warp_of_thread();
  if (row < p.m) choose_experts(p, row, p.places);
}

__global__ void __launch_bounds__(kSortWarps* kWarp) sort_rows(RouteParams p) {
  allow_next();
  wait_for_previous();
  sort_pairs(p, p.places, dynamic_shared<SortShared>());
}

// ---- mix

struct MixParams {
  const float* parts;
  const int32_t* places;
  const float *weights, *shared, *gates;
  int32_t top_k;
  OutRows out;
};

template <bool kWide>
__global__ void mix_rows(MixParams p) {
  allow_next();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  const int32_t first = first_column(), cols = p.out.cols;
  Four sum = {};
#pragma unroll 4
  for (int32_t k = 0; k < p.top_k; ++k) {
    const int64_t pair = row * p.top_k + k;
    const Four part = read_four<kWide>(p.parts + int64_t{p.places[pair]} * cols, first, cols);
    const float weight = p.weights[pair];
    for (int i = 0; i < kFour; ++i) sum.v[i] = fmaf(weight, part.v[i], sum.v[i]);
  }
  if (p.shared) {
    const Four part = read_four<kWide>(p.shared + row * cols, first, cols);
    const float weight = p.gates ? 1.0f / (1.0f + expf(-p.gates[row])) : 1.0f;
    for (int i = 0; i < kFour; ++i) sum.v[i] = fmaf(weight, part.v[i], sum.v[i]);
  }
  write_four<kWide>(p.out, row, first, sum);
}

}  // namespace

void route(const Gpu& gpu, const RouteArgs& args) {
  CHECK(args.count <= kMostExperts && args.top_k <= kMostChosen && args.top_k <= args.count);
  const RouteParams params{args.logits, args.m,    args.count,  args.top_k,  args.renormalize,
                           args.start,  args.rows, args.places, args.weights};
  constexpr uint32_t kUnit = kWarp;
  if (args.m <= kFewRows) {
    const auto warps = static_cast<uint32_t>(args.m < kChooseWarps ? kChooseWarps : args.m);
    launch<route_few_rows>(gpu, {.threads = warps * kUnit, .shared_bytes = sizeof(SortShared)},
                           params);
    return;
  }
  const auto blocks = static_cast<uint32_t>((args.m + kChooseWarps - 1) / kChooseWarps);
  launch<choose_of_rows>(gpu, {.blocks_x = blocks, .threads = kChooseWarps * kUnit}, params);
  launch<sort_rows>(gpu, {.threads = kSortWarps * kUnit, .shared_bytes = sizeof(SortShared)},
                    params);
}

void mix(const Gpu& gpu, const MixArgs& args) {
  const MixParams params{args.parts, args.places, args.weights,      args.shared,
                         args.gates, args.top_k,  out_rows(args.out)};
  const LaunchShape shape = row_pieces(args.m, written_columns(args.out));
  if (in_fours(args.out.cols, args.out.stride)) {
    launch<mix_rows<true>>(gpu, shape, params);
  } else {
    launch<mix_rows<false>>(gpu, shape, params);
  }
}

}  // namespace llorch::cuda
