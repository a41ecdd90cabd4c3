// Products with f32, f16 and bf16 weights: which kernel does one. See product_tile.h and
// float_product.cu for the arithmetic, which is the same whichever it is.
#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/product_parts.h"
#include "backends/cuda/product_tile.h"
#include "base/error.h"
#include "ops/dtype.h"

namespace llorch::cuda {
namespace {

// Few tokens: what counts is that weights stream, some 24 KB of them on their way to a
// multiprocessor at any time, however few rows there are. Rows of a stage are 256 bytes.
template <int kTokenTiles, int kRowWarps, int kStages>
using Narrow = TileShape<1, kTokenTiles, kRowWarps, 1, 128, kStages>;
// More tokens share what is read of weights; a block needs more rows, or x is read too often.
using Square64 = TileShape<1, 4, 4, 2, 64, 6>;         // 64 rows x 64 tokens
using Tall64 = TileShape<2, 4, 4, 2, 64, 4>;           // 128 x 64
using Wide128 = TileShape<2, 8, 2, 2, 64, 4>;          // 64 x 128
using Square128 = TileShape<4, 8, 2, 2, 64, 3, true>;  // 128 x 128
// 128 x 256, for the least traffic of shared memory to a product; where a block can have 192 KiB.
using Wide256 = TileShape<4, 8, 2, 4, 64, 4, true>;
static_assert(std::max({Narrow<1, 4, 5>::kSharedBytes, Narrow<4, 2, 6>::kSharedBytes,
                        Square64::kSharedBytes, Tall64::kSharedBytes, Wide128::kSharedBytes,
                        Square128::kSharedBytes}) <= 99 << 10,
              "more than compute capability 8.6 gives a block");

template <class Shape, DType kType>
__global__ void __launch_bounds__(Shape::kThreads) tile_product(const ProductParams p) {
  allow_next();
  const BlockWork work = block_work<Shape::kRows, Shape::kTokens>(p);
  Tile<Shape, kType> tile(p, work);
  if constexpr (Shape::kPlain) {
    tile.run(work.first, work.end);
  } else {
    const auto stride = static_cast<int32_t>(gridDim.y) * Shape::kTokens;
    for (int32_t first = work.first; first < work.end; first += stride) {
      if (first != work.first) sync_block();  // nobody reads the ring of the tile before
      tile.run(first, min(work.end, first + Shape::kTokens));
    }
  }
}

struct FinishParams {
  float* out;
  int64_t stride;
  const float* bias;  // or null
  float softcap;      // or 0
  int32_t m, rows;
};

constexpr int kFinishThreads = 256;

__global__ void finish(const FinishParams p) {
  allow_next();
  wait_for_previous();
  const auto first = static_cast<int32_t>(blockIdx.x * kFinishThreads + threadIdx.x);
  if (first >= p.rows) return;
  const float bias = p.bias ? p.bias[first] : 0.0f;
  for (auto i = static_cast<int32_t>(blockIdx.y); i < p.m; i += static_cast<int32_t>(gridDim.y)) {
    float* const at = p.out + i * p.stride + first;
    const float v = p.bias ? *at + bias : *at;
    *at = p.softcap > 0 ? p.softcap * tanhf(v / p.softcap) : v;
  }
}

template <class Shape, DType kType>
void launch_tiles(const Gpu& gpu, const ProductArgs& args) {
  launch_product<tile_product<Shape, kType>, Shape::kRows, Shape::kTokens>(
      gpu, args, Shape::kThreads, Shape::kSharedBytes);
}

// How many of an expert's rows a tile should hold, if there are m in all.
int32_t tokens_at_once(const ProductArgs& args) {
  if (args.experts.count == 0) return args.m;
  return std::min(args.m, 2 * ((args.m + args.experts.count - 1) / args.experts.count));
}

template <DType kType>
void product_of_few(const Gpu& gpu, const ProductArgs& args, int32_t tokens, int64_t row_tiles) {
  const int64_t processors = gpu.facts().multiprocessors;
  const int row_warps = row_tiles * 2 <= processors * 3 ? 1 : row_tiles <= processors * 4 ? 2 : 4;
  if (tokens <= 8) {
    if (row_warps == 1) return launch_tiles<Narrow<1, 1, 8>, kType>(gpu, args);
    if (row_warps == 2) return launch_tiles<Narrow<1, 2, 8>, kType>(gpu, args);
    return launch_tiles<Narrow<1, 4, 5>, kType>(gpu, args);
  }
  if (tokens <= 16) {
    if (row_warps == 1) return launch_tiles<Narrow<2, 1, 8>, kType>(gpu, args);
    if (row_warps == 2) return launch_tiles<Narrow<2, 2, 8>, kType>(gpu, args);
    return launch_tiles<Narrow<2, 4, 4>, kType>(gpu, args);
  }
  if (row_warps <= 2) return launch_tiles<Narrow<4, 2, 6>, kType>(gpu, args);
  launch_tiles<Narrow<4, 4, 4>, kType>(gpu, args);
}

// Whether full tiles of a shape can do it, and keep the device busy to the end.
template <class Shape>
bool fills_device(const Gpu& gpu, const ProductArgs& args) {
  if (args.experts.count > 0 || args.rows || args.w.rows < Shape::kRows ||
      args.m < Shape::kTokens) {
    return false;
  }
  const int64_t row_tiles = (args.w.rows + Shape::kRows - 1) / Shape::kRows;
  const int64_t tiles = row_tiles * ((args.m + Shape::kTokens - 1) / Shape::kTokens);
  const int64_t processors = gpu.facts().multiprocessors;
  const int64_t rounds = (tiles + processors - 1) / processors;
  return tiles * 5 >= rounds * processors * 4;
}

template <DType kType>
void product_16(const Gpu& gpu, const ProductArgs& args) {
  const int32_t tokens = tokens_at_once(args);
  // Of 16 rows, of all experts that have tokens.
  const int64_t row_tiles =
      int64_t{(args.w.rows + 15) / 16} * std::clamp(args.experts.count, 1, args.m);
  if (tokens <= 32) return product_of_few<kType>(gpu, args, tokens, row_tiles);
  const int64_t tall_tiles = row_tiles / 8 * ((tokens + 127) / 128);
  const bool tall = tall_tiles >= gpu.facts().multiprocessors;
  if (tokens <= 64) {
    if (tall) return launch_tiles<Tall64, kType>(gpu, args);
    return launch_tiles<Square64, kType>(gpu, args);
  }
  const int architecture = gpu.facts().architecture;
  const bool roomy = architecture >= 90 && architecture < 120;
  if (roomy && fills_device<Wide256>(gpu, args)) return launch_tiles<Wide256, kType>(gpu, args);
  if (fills_device<Square128>(gpu, args)) return launch_tiles<Square128, kType>(gpu, args);
  launch_tiles<Wide128, kType>(gpu, args);
}

}  // namespace

void finish_product(const Gpu& gpu, const ProductArgs& args, bool bias) {
  const float* const added = bias ? args.w.bias : nullptr;
  if (args.softcap <= 0 && added == nullptr) return;
  const auto blocks = static_cast<uint32_t>((args.w.rows + kFinishThreads - 1) / kFinishThreads);
  launch<finish>(gpu,
                 {.blocks_x = blocks,
                  .blocks_y = std::min(static_cast<uint32_t>(args.m), 64u),
                  .threads = kFinishThreads},
                 FinishParams{args.out, args.out_stride, added, args.softcap, args.m, args.w.rows});
}

void product(const Gpu& gpu, const ProductArgs& args) {
  if (args.m <= 0 || args.w.rows <= 0) return;
  CHECK(!is_quantised(args.w.type));
  CHECK(args.w.type == DType::kF32 || args.x.rounded_type == args.w.type);
  switch (args.w.type) {
    case DType::kF32:
      float_product(gpu, args);
      break;
    case DType::kF16:
      product_16<DType::kF16>(gpu, args);
      break;
    default:
      product_16<DType::kBF16>(gpu, args);
  }
  finish_product(gpu, args, false);
}

}  // namespace llorch::cuda
