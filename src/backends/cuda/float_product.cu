// Products with f32 weights, the exact path: an output is one accumulator, acc = fmaf(x, w, acc)
// over the columns in order. Lanes have weight rows, so that one read of x serves a warp.
#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/product_blocks.h"
#include "backends/cuda/product_parts.h"

namespace llorch::cuda {
namespace {

constexpr int kColumns = 32;  // of a stage
// Floats between rows of a stage: lanes that read the same four columns of 8 rows meet in no bank.
constexpr int kPitch = kColumns + 4;

// A lane has LaneRows weight rows (32 apart) and a warp WarpTokens tokens.
template <int LaneRows, int WarpTokens, int Warps, int Stages>
struct FloatShape {
  static constexpr int kLaneRows = LaneRows, kWarpTokens = WarpTokens, kWarps = Warps;
  static constexpr int kStages = Stages;
  static constexpr int kThreads = kWarp * Warps;
  static constexpr int kRows = kWarp * LaneRows, kTokens = WarpTokens * Warps;
  static constexpr int kCopies = kRows * (kColumns / 4) / kThreads;
  static constexpr int kStageFloats = kRows * kPitch;
  static constexpr size_t kSharedBytes = (Stages * kStageFloats + 2 * kTokens * kColumns) * 4;
  static_assert(kSharedBytes <= 99 << 10 && kStageFloats % 4 == 0 && kCopies > 0);
};

template <class Shape>
class FloatTile {
 public:
  __device__ FloatTile(const ProductParams& p, const BlockWork& work)
      : args_(p.args),
        work_(work),
        columns_(p.columns),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        ring_(dynamic_shared<float>()),
        x_(ring_ + Shape::kStages * Shape::kStageFloats) {}

  // Tokens `first` up to `end`, no more than the tile has. Nothing may still read shared memory.
  __device__ void run(int32_t first, int32_t end) {
    for (int s = 0; s < Shape::kStages - 1; ++s) copy_weights(s, s);
    wait_for_previous();
    find_sources(first, end);
    load_x(0);
    store_x(0);
#pragma unroll
    for (int r = 0; r < Shape::kLaneRows; ++r) {
#pragma unroll
      for (int t = 0; t < Shape::kWarpTokens; ++t) sums_[r][t] = 0;
    }
    const int stages = (args_.w.cols + kColumns - 1) / kColumns;
    int from = 0, to = Shape::kStages - 1;  // slots of the ring
    for (int stage = 0; stage < stages; ++stage) {
      copy_async_wait<Shape::kStages - 2>();
      sync_block();  // this stage is there, and nobody reads the one before any more
      copy_weights(stage + Shape::kStages - 1, to);
      load_x(stage + 1);
      add_stage(from, stage % 2);
      store_x((stage + 1) % 2);
      from = from + 1 == Shape::kStages ? 0 : from + 1;
      to = to + 1 == Shape::kStages ? 0 : to + 1;
    }
    copy_async_wait<0>();
    store(first, end);
  }

 private:
  __device__ void copy_weights(int stage, int slot) const {
#pragma unroll
    for (int i = 0; i < Shape::kCopies; ++i) {
      const int chunk = static_cast<int>(threadIdx.x) + i * Shape::kThreads;
      const int row = chunk / (kColumns / 4), column = chunk % (kColumns / 4) * 4;
      const int at = stage * kColumns + column;
      // Rows that are not there stay whatever they are: no other's output sees them.
      if (at >= columns_ || work_.first_row + row >= args_.w.rows) continue;
      copy_async_16(ring_ + slot * Shape::kStageFloats + row * kPitch + column,
                    reinterpret_cast<const float*>(work_.values) +
                        int64_t{work_.first_row + row} * columns_ + at);
    }
    copy_async_commit();
  }

  // Whose x this thread brings: column lane_ of one token after the other.
  __device__ void find_sources(int32_t first, int32_t end) {
#pragma unroll
    for (int t = 0; t < Shape::kWarpTokens; ++t) {
      const int32_t token = first + t * Shape::kWarps + warp_;
      sources_[t] = token < end ? source_row(args_, token) : -1;
    }
  }

  __device__ void load_x(int stage) {
    const int column = stage * kColumns + lane_;
#pragma unroll
    for (int t = 0; t < Shape::kWarpTokens; ++t) {
      const bool there = sources_[t] >= 0 && column < args_.w.cols;
      next_x_[t] = there ? args_.x.values[sources_[t] * args_.x.stride + column] : 0.0f;
    }
  }

  __device__ void store_x(int buffer) const {
#pragma unroll
    for (int t = 0; t < Shape::kWarpTokens; ++t) {
      x_[(buffer * Shape::kTokens + t * Shape::kWarps + warp_) * kColumns + lane_] = next_x_[t];
    }
  }

  __device__ void add_stage(int slot, int buffer) {
    const float* const weights = ring_ + slot * Shape::kStageFloats + lane_ * kPitch;
    const float* const x = x_ + (buffer * Shape::kTokens + warp_ * Shape::kWarpTokens) * kColumns;
#pragma unroll
    for (int column = 0; column < kColumns; column += 4) {
      float4 w[Shape::kLaneRows];
#pragma unroll
      for (int r = 0; r < Shape::kLaneRows; ++r) {
        w[r] = *reinterpret_cast<const float4*>(weights + r * kWarp * kPitch + column);
      }
#pragma unroll
      for (int t = 0; t < Shape::kWarpTokens; ++t) {
        const float4 v = *reinterpret_cast<const float4*>(x + t * kColumns + column);
#pragma unroll
        for (int r = 0; r < Shape::kLaneRows; ++r) {
          float& sum = sums_[r][t];
          sum = fmaf(v.x, w[r].x, sum);
          sum = fmaf(v.y, w[r].y, sum);
          sum = fmaf(v.z, w[r].z, sum);
          sum = fmaf(v.w, w[r].w, sum);
        }
      }
    }
  }

  __device__ void store(int32_t first, int32_t end) const {
#pragma unroll
    for (int r = 0; r < Shape::kLaneRows; ++r) {
      const int32_t row = work_.first_row + r * kWarp + lane_;
      if (row >= args_.w.rows) continue;
      const float bias = work_.bias ? work_.bias[row] : 0.0f;
#pragma unroll
      for (int t = 0; t < Shape::kWarpTokens; ++t) {
        const int32_t token = first + warp_ * Shape::kWarpTokens + t;
        if (token >= end) continue;
        args_.out[token * args_.out_stride + row] = work_.bias ? sums_[r][t] + bias : sums_[r][t];
      }
    }
  }

  const ProductArgs& args_;
  const BlockWork& work_;
  const int32_t columns_;  // of a row of weights, padded
  const int lane_, warp_;
  float* const ring_;
  float* const x_;  // two stages of [kTokens][kColumns]
  int32_t sources_[Shape::kWarpTokens];
  float next_x_[Shape::kWarpTokens];
  float sums_[Shape::kLaneRows][Shape::kWarpTokens];
};

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) float_tile_product(const ProductParams p) {
  allow_next();
  const BlockWork work = block_work<Shape::kRows, Shape::kTokens>(p);
  FloatTile<Shape> tile(p, work);
  const auto stride = static_cast<int32_t>(gridDim.y) * Shape::kTokens;
  for (int32_t first = work.first; first < work.end; first += stride) {
    if (first != work.first) sync_block();
    tile.run(first, min(work.end, first + Shape::kTokens));
  }
}

template <class Shape>
void launch_floats(const Gpu& gpu, const ProductArgs& args) {
  launch_product<float_tile_product<Shape>, Shape::kRows, Shape::kTokens>(
      gpu, args, Shape::kThreads, Shape::kSharedBytes);
}

}  // namespace

void float_product(const Gpu& gpu, const ProductArgs& args) {
  if (args.m == 1) return launch_floats<FloatShape<1, 1, 1, 8>>(gpu, args);
  if (args.m <= 16) return launch_floats<FloatShape<1, 8, 2, 6>>(gpu, args);
  launch_floats<FloatShape<2, 8, 8, 4>>(gpu, args);
}

}  // namespace llorch::cuda
