// Products with quantised weights: which kernel does one; and rows of quantised tables. See
// quantised_parts.h for the arithmetic, which is the same whichever it is.
#include <algorithm>

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/product_parts.h"
#include "backends/cuda/quantised_parts.h"
#include "ops/dtype.h"

namespace llorch::cuda {
namespace {

struct EmbedParams {
  EmbedArgs args;
  int64_t code_bytes = 0, scale_bytes = 0;  // of a panel
  int32_t padded = 0;                       // columns of args.out.rounded
};

// Where a row's column lies: in a tile the lane, and of its codes pair r of mma j, first or second.
struct Place {
  uint32_t unit, tile, lane, g, b, j, r, h, second;
};
template <DType type>
__device__ inline Place place_of(uint32_t row, uint32_t column) {
  Place at;
  at.unit = column / kUnitColumns;
  at.b = column / 32 % 2;
  at.g = row % kPanelRows / 4;
  at.tile = row / 2 % 2;
  at.h = row % 2;
  const uint32_t within = column % 32;
  const bool apart = type == DType::kQ6_K;
  at.j = apart ? within / 16 : within / 4 % 2;
  at.lane = at.g * 4 + (apart ? within / 4 % 4 : within / 8);
  at.r = at.h + column / 2 % 2 * 2;
  at.second = column % 2;
  return at;
}

__device__ inline uint32_t byte_at(const std::byte* at) { return static_cast<uint32_t>(*at); }

// The value of a code, less its scale.
template <DType type>
__device__ inline float value_of(const std::byte* tile, const Place& at) {
  constexpr int kBits = Panel<type>::kBits;
  const auto* const words = reinterpret_cast<const uint32_t*>(tile);
  if constexpr (kBits == 8) {
    const uint32_t word = (at.b * kWarp + at.lane) * 4 + 2 * at.j + at.r / 2;
    const uint32_t code = byte_at(tile + word * 4 + at.h + 2 * at.second);
    if constexpr (type == DType::kF8E4M3) return float_of_e4m3(static_cast<uint8_t>(code));
    return static_cast<float>(static_cast<int8_t>(code));
  } else {
    const uint32_t word = words[at.lane * 4 + 2 * at.b + at.j];
    if constexpr (type == DType::kIQ4_NL) {
      return non_linear(word >> (8 * at.r + 4 * at.second) & 15);
    }
    uint32_t code = word >> (4 * at.r + 16 * at.second) & 15;
    if constexpr (kBits == 5) {
      const uint32_t bit = 4 * (2 * at.b + at.j) + at.r + 16 * at.second;
      code |= (words[128 + at.lane] >> bit & 1) << 4;
    }
    if constexpr (kBits == 6) {
      const uint32_t bit = 2 * (4 * at.j + at.r) + 16 * at.second;
      code |= (words[128 + at.lane * 2 + at.b] >> bit & 3) << 4;
    }
    constexpr int kZero = type == DType::kQ4_0 ? 8 : type == DType::kQ6_K ? 32 : 0;
    return static_cast<float>(static_cast<int>(code) - kZero);
  }
}

template <DType type>
__device__ inline float decoded(const EmbedParams& p, int32_t row, int32_t column) {
  const Place at = place_of<type>(static_cast<uint32_t>(row), static_cast<uint32_t>(column));
  const int64_t panel = row / kPanelRows;
  const auto unit = static_cast<int32_t>(at.unit);
  const float value = value_of<type>(p.args.w.values + panel * p.code_bytes +
                                         (2 * at.unit + at.tile) * size_t{Panel<type>::kCodeBytes},
                                     at);
  const std::byte* const first = p.args.w.scales + panel * p.scale_bytes;
  const std::byte* const scales = first + scales_at<type>(unit) + at.tile * kScaleBytes;
  const uint2 unit_scales = reinterpret_cast<const uint2*>(scales)[at.g];
  uint32_t words[2] = {};
  if constexpr (Panel<type>::kHeaderBytes > 0) {
    const std::byte* const header = first + scales_at<type>(unit / kHeaderUnits * kHeaderUnits) -
                                    (2 - at.tile) * Panel<type>::kHeaderBytes;
    load_header<type, FromGlobal>(header, at.g, words);
  }
  const auto h = static_cast<int>(at.h);
  const RowScales s =
      row_scales<type>(unit_scales, row_header<type>(words, h), static_cast<int>(at.b), h);
  if constexpr (type == DType::kQ6_K) return (at.j == 0 ? s.scale[0] : s.scale[1]) * value;
  return kHasMinima<type> ? s.scale[0] * value + s.minus_min : s.scale[0] * value;
}

// Block (x, y): row x, columns from y * blockDim.x on.
template <DType type>
__global__ void embed_rows(const EmbedParams p) {
  allow_next();
  wait_for_previous();
  const EmbedArgs& args = p.args;
  const int32_t row = args.ids[blockIdx.x] - args.first_row;
  const auto column = static_cast<int32_t>(blockIdx.y * blockDim.x + threadIdx.x);
  if (row < 0 || row >= args.w.rows) return;
  const bool there = column < args.w.cols;
  const float value = there ? args.scale * decoded<type>(p, row, column) : 0.0f;
  if (args.out.values && there) args.out.values[blockIdx.x * args.out.stride + column] = value;
  if (args.out.rounded && column < p.padded) {
    const bool f16 = args.out.rounded_type == DType::kF16;
    args.out.rounded[int64_t{blockIdx.x} * p.padded + column] =
        f16 ? bounded_f16(value) : bf16_of_float(value);
  }
}

constexpr int32_t kMostPartialTokens = 256;

int64_t partial_stride(int32_t rows) { return int64_t{panels_of(rows)} * kPanelRows; }

uint64_t partial_bytes(int32_t rows, int32_t slices, int32_t tokens) {
  return static_cast<uint64_t>(slices) * static_cast<uint64_t>(tokens) *
         static_cast<uint64_t>(partial_stride(rows)) * sizeof(float);
}

// Tokens that share an expert's weights, about the most of them; without experts all.
int32_t tokens_at_once(const ProductArgs& args) {
  const int32_t experts = args.experts.count;
  return experts == 0 ? args.m : std::min(args.m, 2 * ((args.m + experts - 1) / experts));
}

}  // namespace

void embed_quantised(const Gpu& gpu, const EmbedArgs& args) {
  if (args.m <= 0) return;
  constexpr int32_t kThreads = 256;
  const EmbedParams params{.args = args,
                           .code_bytes = panel_code_bytes(args.w.type, args.w.cols),
                           .scale_bytes = panel_scale_bytes(args.w.type, args.w.cols),
                           .padded = padded_columns(args.w.cols)};
  const LaunchShape shape{
      .blocks_x = static_cast<uint32_t>(args.m),
      .blocks_y = static_cast<uint32_t>((params.padded + kThreads - 1) / kThreads),
      .threads = kThreads};
  with_type(args.w.type, [&](auto type) { launch<embed_rows<type>>(gpu, shape, params); });
}

uint64_t quantised_scratch_bytes(int32_t rows, int32_t cols, int32_t m) {
  const int32_t slices = slices_of(rows, cols).count;
  return slices > 1 ? partial_bytes(rows, slices, std::min(m, kMostPartialTokens)) : 0;
}

void quantised_product(const Gpu& gpu, const ProductArgs& args) {
  if (args.m <= 0 || args.w.rows <= 0) return;
  const int32_t rows = args.w.rows, cols = args.w.cols;
  QuantisedParams params{
      .args = args,
      .slices = slices_of(rows, cols),
      .units = units_of(cols),
      .code_bytes = panel_code_bytes(args.w.type, cols),
      .scale_bytes = panel_scale_bytes(args.w.type, cols),
      .x_chunks = static_cast<uint32_t>(args.x.rounded_stride() / kChunkColumns)};
  params.aligned = reinterpret_cast<uintptr_t>(args.out) % 16 == 0 && args.out_stride % 4 == 0;
  const int32_t tokens = tokens_at_once(args);
  if (tokens <= 16 && few_rows_product(gpu, params, tokens))
    return finish_product(gpu, args, false);
  const bool room = args.m <= kMostPartialTokens && args.experts.count == 0 &&
                    params.slices.count > 1 &&
                    args.scratch_bytes >= partial_bytes(rows, params.slices.count, args.m);
  if (room) {
    params.partial = reinterpret_cast<float*>(args.scratch);
    params.partial_stride = partial_stride(rows);
  }
  many_rows_product(gpu, params, tokens);
  finish_product(gpu, args, false);
}

}  // namespace llorch::cuda
