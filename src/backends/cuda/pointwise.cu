// What is done to rows of activations one by one: embedding, norms, sums, activations. All of it is
// bound by memory, or for few rows by how long one kernel takes to follow another.
#include "backends/cuda/rows.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

// ---- embed

struct EmbedParams {
  const std::byte* table;
  const int32_t* ids;
  int32_t first_row, rows;
  float scale;
  OutRows out;
};

template <DType kType>
__device__ Four read_stored(const std::byte* row, int32_t first) {
  if (kType == DType::kF32) {
    return read_four<true>(reinterpret_cast<const float*>(row), first, first + kFour);
  }
  const uint2 bits =
      *reinterpret_cast<const uint2*>(reinterpret_cast<const uint16_t*>(row) + first);
  const auto value = [](uint32_t half) {
    const auto stored = static_cast<uint16_t>(half);
    return kType == DType::kF16 ? float_of_f16(stored) : float_of_bf16(stored);
  };
  return {
      {value(bits.x & 0xffffu), value(bits.x >> 16), value(bits.y & 0xffffu), value(bits.y >> 16)}};
}

template <DType kType, bool kWide>
__global__ void embed_rows(EmbedParams p) {
  allow_next();
  wait_for_previous();
  const int64_t row = int64_t{p.ids[blockIdx.x]} - p.first_row;
  const int32_t first = first_column();
  if (row < 0 || row >= p.rows || first >= p.out.padded) return;
  constexpr int64_t kBytes = kType == DType::kF32 ? 4 : 2;
  Four four = read_stored<kType>(p.table + row * p.out.padded * kBytes, first);
  for (int i = 0; i < kFour; ++i) four.v[i] = p.scale * four.v[i];
  write_four<kWide>(p.out, blockIdx.x, first, four);
}

template <DType kType>
void start_embed(const Gpu& gpu, const LaunchShape& shape, bool wide, const EmbedParams& params) {
  if (wide) {
    launch<embed_rows<kType, true>>(gpu, shape, params);
  } else {
    launch<embed_rows<kType, false>>(gpu, shape, params);
  }
}

// ---- norm

// Threads that share a row: kFours times four columns each, a warp's side by side.
constexpr int kMostNormThreads = 1024;

struct NormParams {
  const float *x, *sum;
  float* total;
  const float *gain, *bias;
  float eps;
  bool layer;
  OutRows out;
};

// One block a row, which stays in registers. The order of sums follows from the columns alone.
template <bool kWide, int kFours>
__global__ void __launch_bounds__(kMostNormThreads) norm_rows(NormParams p) {
  __shared__ float parts[2][kWarp];
  allow_next();
  const int32_t cols = p.out.cols;
  const auto column = [](int k) {
    return (k * static_cast<int32_t>(blockDim.x) + static_cast<int32_t>(threadIdx.x)) * kFour;
  };
  Four x[kFours], gain[kFours], bias[kFours];
  const auto read_weights = [&](int k) {
    gain[k] = read_four<kWide>(p.gain, column(k), cols);
    bias[k] = p.bias ? read_four<kWide>(p.bias, column(k), cols) : Four{};
  };
  constexpr bool kEarly = kFours <= 2;  // while the kernel before ends, if there are registers
#pragma unroll
  for (int k = 0; k < kFours; ++k) {
    if (kEarly) read_weights(k);
  }
  wait_for_previous();
  const int64_t row = blockIdx.x, at = row * cols;
  float mean = 0;
#pragma unroll
  for (int k = 0; k < kFours; ++k) x[k] = read_four<kWide>(p.x + at, column(k), cols);
  if (p.sum) {
#pragma unroll
    for (int k = 0; k < kFours; ++k) {
      const Four sum = read_four<kWide>(p.sum + at, column(k), cols);
      for (int i = 0; i < kFour; ++i) x[k].v[i] = x[k].v[i] + sum.v[i];
    }
  }
#pragma unroll
  for (int k = 0; k < kFours; ++k) {
    if (p.total) write_four<kWide>(p.total + at, column(k), cols, x[k]);
    for (int i = 0; i < kFour; ++i) mean = mean + x[k].v[i];
  }
  const auto count = static_cast<float>(cols);
  mean = p.layer ? block_sum(mean, parts[0]) / count : 0.0f;
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kFours; ++k) {
    for (int i = 0; i < kFour; ++i) {
      x[k].v[i] = column(k) + i < cols ? x[k].v[i] - mean : 0.0f;
      squares = fmaf(x[k].v[i], x[k].v[i], squares);
    }
  }
  const float factor = 1.0f / sqrtf(block_sum(squares, parts[1]) / count + p.eps);
#pragma unroll
  for (int k = 0; k < kFours; ++k) {
    if (!kEarly) read_weights(k);
    for (int i = 0; i < kFour; ++i) {
      x[k].v[i] = x[k].v[i] * factor * gain[k].v[i] + bias[k].v[i];
    }
    write_four<kWide>(p.out, row, column(k), x[k]);
  }
}

template <bool kWide>
void start_norm(const Gpu& gpu, int32_t m, const NormParams& params) {
  const auto threads = [padded = params.out.padded](int fours) {
    const int32_t warp = fours * kFour * kWarp;
    return static_cast<uint32_t>((padded + warp - 1) / warp * kWarp);
  };
  LaunchShape shape{.blocks_x = static_cast<uint32_t>(m), .threads = threads(2)};
  if (shape.threads <= kMostNormThreads) {
    launch<norm_rows<kWide, 2>>(gpu, shape, params);
  } else if ((shape.threads = threads(4)) <= kMostNormThreads) {
    launch<norm_rows<kWide, 4>>(gpu, shape, params);
  } else {  // longer than any model's; its registers spill
    shape.threads = threads(16);
    CHECK(shape.threads <= kMostNormThreads);
    launch<norm_rows<kWide, 16>>(gpu, shape, params);
  }
}

// ---- add, round_rows

struct AddParams {
  const float *x, *sum;  // no sum: x alone
  int64_t x_stride;
  OutRows total;
};

template <bool kWide>
__global__ void add_rows(AddParams p) {
  allow_next();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  const int32_t first = first_column(), cols = p.total.cols;
  Four x = read_four<kWide>(p.x + row * p.x_stride, first, cols);
  if (p.sum) {
    const Four sum = read_four<kWide>(p.sum + row * cols, first, cols);
    for (int i = 0; i < kFour; ++i) x.v[i] = x.v[i] + sum.v[i];
  }
  write_four<kWide>(p.total, row, first, x);
}

void start_add(const Gpu& gpu, const AddParams& params, const LaunchShape& shape) {
  const OutRows& out = params.total;
  if (in_fours(out.cols, out.stride) && in_fours(out.cols, params.x_stride)) {
    launch<add_rows<true>>(gpu, shape, params);
  } else {
    launch<add_rows<false>>(gpu, shape, params);
  }
}

// ---- activate

struct ActivateParams {
  const float* up;
  bool gated;
  Act act;
  OutRows hidden;
};

__device__ inline float activated(float x, Act act) {
  if (act == Act::kSilu) return x / (1.0f + expf(-x));
  if (act == Act::kGelu) return 0.5f * x * erfcf(x * -0.70710678118654752f);
  // (1 + tanh u) / 2 as 1 / (1 + exp(-2 u)): it loses nothing where tanh is near -1.
  constexpr float kTwoRoots = 1.59576912160573071f;  // 2 sqrt(2 / pi)
  const float u = kTwoRoots * fmaf(0.044715f * x * x, x, x);
  return x / (1.0f + expf(-u));
}

template <bool kWide>
__global__ void activate_rows(ActivateParams p) {
  allow_next();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  const int32_t first = first_column(), cols = p.hidden.cols;
  const float* const from = p.up + row * cols * (p.gated ? 2 : 1);
  Four x = read_four<kWide>(from, first, cols);
  Four up = {{1, 1, 1, 1}};
  if (p.gated) up = read_four<kWide>(from + cols, first, cols);
  for (int i = 0; i < kFour; ++i) x.v[i] = activated(x.v[i], p.act) * up.v[i];
  write_four<kWide>(p.hidden, row, first, x);
}

// ---- resolve_tokens

struct ResolveParams {
  int32_t* ids;
  int32_t m;
  const SampledRow* sampled;
};

__global__ void resolve_ids(ResolveParams p) {
  allow_next();
  wait_for_previous();
  const auto i = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.m || p.ids[i] >= 0) return;
  const int32_t token = p.sampled[-1 - p.ids[i]].token;
  p.ids[i] = token < 0 ? 0 : token;
}

}  // namespace

void embed(const Gpu& gpu, const EmbedArgs& args) {
  const EmbedParams params{args.w.values, args.ids,   args.first_row,
                           args.w.rows,   args.scale, out_rows(args.out)};
  const LaunchShape shape = row_pieces(args.m, written_columns(args.out));
  const bool wide = in_fours(args.out.cols, args.out.stride);
  if (args.w.type == DType::kF32) return start_embed<DType::kF32>(gpu, shape, wide, params);
  if (args.w.type == DType::kF16) return start_embed<DType::kF16>(gpu, shape, wide, params);
  CHECK(args.w.type == DType::kBF16);
  start_embed<DType::kBF16>(gpu, shape, wide, params);
}

void norm(const Gpu& gpu, const NormArgs& args) {
  const NormParams params{args.x,         args.sum,      args.total,      args.norm.gain,
                          args.norm.bias, args.norm.eps, args.norm.layer, out_rows(args.out)};
  if (in_fours(args.out.cols, args.out.stride)) {
    start_norm<true>(gpu, args.m, params);
  } else {
    start_norm<false>(gpu, args.m, params);
  }
}

void add(const Gpu& gpu, const float* x, const float* sum, Activations total, int32_t m) {
  start_add(gpu, {x, sum, total.cols, out_rows(total)}, row_pieces(m, written_columns(total)));
}

void round_rows(const Gpu& gpu, const Activations& x, int32_t m) {
  OutRows out = out_rows(x);
  out.values = nullptr;
  start_add(gpu, {x.values, nullptr, x.stride, out}, row_pieces(m, out.padded));
}

void activate(const Gpu& gpu, const ActivateArgs& args) {
  const ActivateParams params{args.up, args.gated, args.act, out_rows(args.hidden)};
  const LaunchShape shape = row_pieces(args.m, written_columns(args.hidden));
  if (in_fours(args.hidden.cols, args.hidden.stride)) {
    launch<activate_rows<true>>(gpu, shape, params);
  } else {
    launch<activate_rows<false>>(gpu, shape, params);
  }
}

void resolve_tokens(const Gpu& gpu, int32_t* ids, int32_t m, const SampledRow* sampled) {
  constexpr int32_t kThreads = 128;
  launch<resolve_ids>(
      gpu, {.blocks_x = static_cast<uint32_t>((m + kThreads - 1) / kThreads), .threads = kThreads},
      ResolveParams{ids, m, sampled});
}

}  // namespace llorch::cuda
