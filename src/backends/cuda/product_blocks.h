// How the kernels of product.cu and float_product.cu share out a product: a block has a tile of
// weight rows and one of product rows ("tokens"), or, with experts, tile after tile of its
// expert's.
#pragma once

#include <algorithm>

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.h"

namespace llorch::cuda {

struct ProductParams {
  ProductArgs args;
  int32_t columns = 0;  // of the weight, padded
  int32_t row_tiles = 0, token_tiles = 0;
};

struct BlockWork {
  const std::byte* values;  // of the weight, or of the block's expert's
  const float* bias;        // or null
  int32_t first_row;        // of the weight
  int32_t first, end;       // token tiles begin at `first`, gridDim.y tiles apart, below `end`
};

// So many token tiles follow each other with the same weights, for these to come from the L2 cache.
constexpr int32_t kTokenTilesTogether = 16;

// The expert whose blocks these are: blockIdx.z itself, or, where not all of them can have tokens,
// the one with tokens that so many others come before; `count` if there is none. [warp]
__device__ inline int32_t expert_of_block(const ProductArgs& args) {
  const int32_t count = args.experts.count;
  auto left = static_cast<int32_t>(blockIdx.z);
  if (args.m >= count) return left;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t* const start = args.experts.start;
  constexpr int32_t kAtOnce = kWarp * kWarp;
  for (int32_t first = 0; first < count; first += kAtOnce) {
    uint32_t busy = 0;  // bit i: expert first + 32 i + lane has tokens
    const int32_t end = min(count, first + kAtOnce);
    for (int32_t i = 0; first + i * kWarp < end; ++i) {
      const int32_t e = first + i * kWarp + lane;
      busy |= static_cast<uint32_t>(e < end && start[e] < start[e + 1]) << i;
    }
    for (int32_t i = 0; first + i * kWarp < end; ++i) {
      uint32_t lanes = ballot((busy >> i & 1) != 0);
      if (left >= __popc(lanes)) {
        left -= __popc(lanes);
        continue;
      }
      for (; left > 0; --left) lanes &= lanes - 1;
      return first + i * kWarp + __ffs(static_cast<int>(lanes)) - 1;
    }
  }
  return count;
}

// What this block does. With experts it waits for the kernels before, whose counts it reads.
template <int kRows, int kTokens>
__device__ inline BlockWork block_work(const ProductParams& p) {
  if (p.args.experts.count > 0) {
    wait_for_previous();
    const int32_t expert = expert_of_block(p.args);
    if (expert == p.args.experts.count) return {};
    const WeightRows& w = p.args.experts.weights[expert];
    return {.values = w.values,
            .bias = w.bias,
            .first_row = static_cast<int32_t>(blockIdx.x) * kRows,
            .first = p.args.experts.start[expert] + static_cast<int32_t>(blockIdx.y) * kTokens,
            .end = p.args.experts.start[expert + 1]};
  }
  const auto block = static_cast<int32_t>(blockIdx.x);
  const int32_t group = block / (p.row_tiles * kTokenTilesTogether) * kTokenTilesTogether;
  const int32_t within = block - group * p.row_tiles;
  const int32_t together = min(kTokenTilesTogether, p.token_tiles - group);
  const int32_t first = (group + within % together) * kTokens;
  return {.values = p.args.w.values,
          .bias = p.args.w.bias,
          .first_row = within / together * kRows,
          .first = first,
          .end = min(p.args.m, first + kTokens)};
}

// The x row of a product row.
__device__ inline int32_t source_row(const ProductArgs& args, int32_t token) {
  return args.rows ? args.rows[token] : token;
}

// Starts `kernel`, of which a block does tiles of kRows x kTokens.
template <auto kernel, int kRows, int kTokens>
void launch_product(const Gpu& gpu, const ProductArgs& args, uint32_t threads,
                    size_t shared_bytes) {
  const ProductParams params{.args = args,
                             .columns = padded_columns(args.w.cols),
                             .row_tiles = (args.w.rows + kRows - 1) / kRows,
                             .token_tiles = (args.m + kTokens - 1) / kTokens};
  LaunchShape shape{.threads = threads, .shared_bytes = shared_bytes};
  const auto row_tiles = static_cast<uint32_t>(params.row_tiles);
  const auto token_tiles = static_cast<uint32_t>(params.token_tiles);
  if (args.experts.count > 0) {
    // Most blocks have one tile or none; more of them are only worth while there are few.
    const auto experts = static_cast<uint32_t>(std::min(args.experts.count, args.m));
    const auto wanted = static_cast<uint32_t>(gpu.facts().multiprocessors) * 32;
    shape.blocks_x = row_tiles;
    shape.blocks_y = std::clamp(wanted / std::max(row_tiles * experts, 1u), 1u, token_tiles);
    shape.blocks_z = experts;
  } else {
    shape.blocks_x = row_tiles * token_tiles;
  }
  launch<kernel>(gpu, shape, params);
}

}  // namespace llorch::cuda
