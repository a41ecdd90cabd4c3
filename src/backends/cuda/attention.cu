// Attention as a whole: which kernels take which rows, and what rows gave that many blocks share.
#include <algorithm>

#include "backends/cuda/attention_parts.h"
#include "backends/cuda/launch.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

struct MergeArgs {
  TileArgs tiles;
  int d, least_rows, most_rows;
};

// A row that was split, and what of its states is there.
struct SplitRow {
  int row, states;
};
__device__ SplitRow find_split_row(const MergeArgs& args, int slot) {
  const TileArgs& a = args.tiles;
  constexpr SplitRow kNone{0, 0};
  int row = slot, sequence = 0, local = 0;
  if (a.slots_of_sequence > 0) {
    sequence = slot / a.slots_of_sequence;
    local = slot % a.slots_of_sequence;
    row = a.query_start[sequence] + local;
    if (row >= a.query_start[sequence + 1]) return kNone;
  }
  if (a.slots[row] < 0) return kNone;
  if (a.slots_of_sequence == 0) sequence = a.row_sequence[row];
  const int rows = a.query_start[sequence + 1] - a.query_start[sequence];
  if (rows < args.least_rows || rows > args.most_rows) return kNone;
  const int last = a.positions[row], first = first_seen(last, a.window);
  return {row, last / kTileTokens - first / kTileTokens + 1};
}

// A row's tiles in order, as a block that takes all of them adds them up. A block takes a row and
// head, a thread an element; what states count is found 32 at a time.
__global__ void __launch_bounds__(kMostHeadDim) merge_states(MergeArgs args) {
  allow_next();
  const TileArgs& a = args.tiles;
  const int slot = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const SplitRow split = find_split_row(args, slot);
  wait_for_previous();
  if (split.states == 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, d = static_cast<int>(threadIdx.x);
  const int stride = args.d + kStateExtra;
  const float* const states = a.states + (int64_t{slot} * a.heads + head) * a.tiles_of_row * stride;
  float top = -INFINITY, total = 0, sum = 0;
  for (int base = 0; base < split.states; base += kWarp) {
    const int count = min(kWarp, split.states - base);
    const float* const from = states + int64_t{base} * stride;
    float values[kWarp];
#pragma unroll
    for (int i = 0; i < kWarp; ++i) values[i] = i < count ? from[i * stride + d] : 0;
    const float tile_top = lane < count ? from[lane * stride + args.d] : -INFINITY;
    const float tile_total = lane < count ? from[lane * stride + args.d + 1] : 0;
    float highest = fmaxf(top, tile_top);  // of all tiles up to this lane's
    for (int step = 1; step < kWarp; step *= 2) {
      const float other = shuffle(highest, lane - step);
      if (lane >= step) highest = fmaxf(highest, other);
    }
    const float above = shuffle(highest, lane - 1);
    float unused;
    const Factors factors = weigh(lane == 0 ? top : above, tile_top, &unused);
#pragma unroll
    for (int i = 0; i < kWarp; ++i) {
      const Factors f = {shuffle(factors.before, i), shuffle(factors.tile, i)};
      const float more = shuffle(tile_total, i);
      if (i >= count) continue;
      sum = add_weighed(sum, values[i], f);
      total = add_weighed(total, more, f);
    }
    top = shuffle(highest, kWarp - 1);
  }
  if (d < a.head_dim) {
    put(a.out, split.row, head * a.head_dim + d, sum * reciprocal_approx(total));
  }
}

// ---- host

constexpr int32_t kNoBound = 0x7fffffff;
// More than this is not worth it: a step with so many states has work for the whole device.
constexpr uint64_t kMostStateBytes = uint64_t{128} << 20;
constexpr uint64_t kAlign = 256;

uint64_t aligned(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
int32_t ceil_div(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

Stored stored_of(DType type) {
  switch (type) {
    case DType::kF32:
      return Stored::kF32;
    case DType::kF16:
      return Stored::kF16;
    case DType::kBF16:
      return Stored::kBF16;
    case DType::kQ8_0:
      return Stored::kInt8;
    case DType::kF8E4M3:
      return Stored::kE4M3;
    default:
      throw Error(ErrorCode::kUnsupported, std::string("[cuda] a kv cache in ") + name(type));
  }
}

// The head dim that kernels take for `head_dim`.
int32_t kernel_dim(int32_t head_dim) {
  for (const int d : kHeadDims) {
    if (head_dim <= d) return d;
  }
  throw Error(ErrorCode::kUnsupported, "[cuda] heads of " + std::to_string(head_dim) +
                                           " elements; at most " + std::to_string(kMostHeadDim));
}

KvLayout layout_of(DType type, int32_t kv_heads, int32_t head_dim, int32_t block_tokens) {
  constexpr int32_t kBlock = 32;
  KvLayout kv;
  kv.stored = stored_of(type);
  kv.block_tokens = block_tokens;
  kv.row_elements = ceil_div(head_dim, kBlock) * kBlock;
  const bool codes = kv.stored == Stored::kInt8 || kv.stored == Stored::kE4M3;
  kv.row_bytes = kv.row_elements * (codes ? 1 : kv.stored == Stored::kF32 ? 4 : 2);
  kv.row_scales = codes ? kv.row_elements / kBlock : 0;
  const int64_t rows = int64_t{kv_heads} * block_tokens;
  kv.values_at = rows * kv.row_bytes;
  kv.scales_at = 2 * kv.values_at;
  kv.value_scales_at = rows * kv.row_scales * 2;
  kv.block_bytes = (kv.scales_at + 2 * kv.value_scales_at + 15) / 16 * 16;
  return kv;
}

// How a step's rows go, see Way. Which way, and in how many parts, changes no bit.
struct Plan {
  int32_t d = 0, group = 0;
  uint64_t q_bytes = 0, state_bytes = 0;
  int32_t slots = 0, slots_of_sequence = 0, tiles_of_row = 0;
  int32_t few = 0;  // rows of a sequence that goes the narrow way
};

Plan plan_of(const AttentionArgs& args) {
  const StepArrays& step = args.step;
  Plan plan;
  plan.d = kernel_dim(args.head_dim);
  plan.group = args.heads / args.kv_heads;
  const bool f32 = args.kv.type == DType::kF32;
  plan.q_bytes = aligned(uint64_t(step.rows) * uint64_t(args.heads) * uint64_t(plan.d) *
                         (f32 ? sizeof(float) : sizeof(uint16_t)));
  plan.few = f32 ? kNoBound : std::clamp(32 / plan.group, 1, 8);
  const bool by_row = step.sequences == 1 || step.rows <= int64_t{step.sequences} * plan.few || f32;
  plan.slots_of_sequence = by_row ? 0 : plan.few;
  plan.slots = by_row ? step.rows : step.sequences * plan.few;
  plan.tiles_of_row = args.window > 0
                          ? ceil_div(std::min(step.longest, args.window), kTileTokens) + 1
                          : ceil_div(std::max(step.longest, 1), kTileTokens);
  plan.state_bytes = uint64_t(plan.slots) * uint64_t(args.heads) * uint64_t(plan.tiles_of_row) *
                     uint64_t(plan.d + kStateExtra) * sizeof(float);
  return plan;
}

// What a kernel needs of the device to be busy: blocks that run at once on a multiprocessor, and
// from how many on it is enough that each takes all tiles of its rows.
struct Occupancy {
  int32_t pairs, at_once, enough;
};

Way way_of(const Gpu& gpu, const StepArrays& step, const AttentionArgs& args, const Plan& plan,
           int32_t least_rows, int32_t most_rows, bool may_split, const Occupancy& kernel) {
  Way way{.least_rows = least_rows, .most_rows = most_rows};
  const int32_t most = std::min(most_rows, step.most_queries);
  const int32_t each = ceil_div(int64_t{most} * plan.group, kernel.pairs);
  const int64_t dense = int64_t{step.sequences} * each;
  const int64_t searched = int64_t{step.rows} * plan.group / kernel.pairs + step.sequences;
  way.row_tiles = static_cast<int32_t>(std::min(dense, searched));
  way.tiles_of_sequence = dense <= searched ? each : 0;
  // Sequences that are there, which may be fewer than there is room for.
  const int64_t sequences = std::min(step.sequences, step.rows / least_rows);
  const int64_t busy = std::min({int64_t{way.row_tiles}, sequences * each,
                                 int64_t{step.rows} * plan.group / kernel.pairs + sequences}) *
                       args.kv_heads;
  const int64_t device = gpu.facts().multiprocessors;
  if (!may_split || busy >= kernel.enough * device) return way;
  way.splits = static_cast<int32_t>(std::clamp<int64_t>(
      kernel.at_once * device / std::max<int64_t>(busy, 1), 1, plan.tiles_of_row));
  return way;
}

TileArgs tile_args(const AttentionArgs& args, const Plan& plan) {
  const bool capped = args.softcap > 0;
  return {.q = args.scratch,
          .blocks = args.kv.blocks,
          .kv = layout_of(args.kv.type, args.kv_heads, args.head_dim, args.kv.block_tokens),
          .positions = args.step.positions,
          .query_start = args.step.query_start,
          .slots = args.step.slots,
          .table = args.step.blocks,
          .row_sequence = args.step.row_sequence,
          .rows = args.step.rows,
          .sequences = args.step.sequences,
          .table_width = args.step.blocks_per_sequence,
          .heads = args.heads,
          .kv_heads = args.kv_heads,
          .group = plan.group,
          .head_dim = args.head_dim,
          .window = args.window,
          .score_factor = capped ? args.scale / args.softcap : args.scale * kLog2E,
          .cap = capped ? args.softcap * kLog2E : 0,
          .out = outputs_of(args.out),
          .states = reinterpret_cast<float*>(args.scratch + plan.q_bytes),
          .tiles_of_row = plan.tiles_of_row,
          .slots_of_sequence = plan.slots_of_sequence};
}

void merge(const Gpu& gpu, const TileArgs& tiles, const Plan& plan, int32_t least_rows,
           int32_t most_rows) {
  launch<merge_states>(gpu,
                       {.blocks_x = static_cast<uint32_t>(plan.slots),
                        .blocks_y = static_cast<uint32_t>(tiles.heads),
                        .threads = static_cast<uint32_t>(plan.d)},
                       MergeArgs{tiles, plan.d, least_rows, most_rows});
}

// Beside f32 there is one kernel for all.
void attend_exactly(const Gpu& gpu, const AttentionArgs& args, const Plan& plan, TileArgs tiles,
                    bool may_split) {
  tiles.way = way_of(gpu, args.step, args, plan, 1, kNoBound, may_split, {f32_pairs(), 4, 2});
  attend_f32(gpu, plan.d, tiles);
  if (tiles.way.splits > 1) merge(gpu, tiles, plan, 1, kNoBound);
}

void attend_rounded(const Gpu& gpu, const AttentionArgs& args, const Plan& plan, TileArgs tiles,
                    bool may_split) {
  const StepArrays& step = args.step;
  const bool wide = step.most_queries > plan.few, narrow = !wide || step.sequences > 1;
  bool split_narrow = false, split_wide = false;
  if (narrow) {
    tiles.way = way_of(gpu, step, args, plan, 1, plan.few, may_split, {narrow_pairs(), 8, 2});
    split_narrow = tiles.way.splits > 1;
    attend_narrow(gpu, plan.d, tiles);
  }
  if (wide) {
    tiles.way = way_of(gpu, step, args, plan, narrow ? plan.few + 1 : 1, kNoBound,
                       may_split && plan.slots_of_sequence == 0, {wide_pairs(plan.d), 2, 1});
    split_wide = tiles.way.splits > 1;
    attend_wide(gpu, plan.d, tiles);
  }
  if (split_narrow || split_wide) {
    merge(gpu, tiles, plan, split_narrow || !narrow ? 1 : plan.few + 1,
          split_wide ? kNoBound : plan.few);
  }
}

}  // namespace

int64_t kv_block_bytes(const KvSpec& spec) {
  kernel_dim(spec.head_dim);
  return layout_of(spec.type, spec.kv_heads, spec.head_dim, spec.block_tokens).block_bytes;
}

uint64_t least_attention_scratch_bytes(const AttentionArgs& args) { return plan_of(args).q_bytes; }

uint64_t attention_scratch_bytes(const AttentionArgs& args) {
  const Plan plan = plan_of(args);
  return plan.q_bytes + std::min(plan.state_bytes, kMostStateBytes);
}

void attention(const Gpu& gpu, const AttentionArgs& args) {
  const Plan plan = plan_of(args);
  CHECK(args.scratch_bytes >= plan.q_bytes && args.scale > 0);
  const TileArgs tiles = tile_args(args, plan);
  CHECK(tiles.kv.block_bytes == args.kv.block_bytes);
  prepare_rows(gpu, args, tiles.kv, plan.d, args.scratch);
  const bool may_split = plan.q_bytes + plan.state_bytes <= args.scratch_bytes;
  if (tiles.kv.stored == Stored::kF32) {
    attend_exactly(gpu, args, plan, tiles, may_split);
  } else {
    attend_rounded(gpu, args, plan, tiles, may_split);
  }
}

}  // namespace llorch::cuda
