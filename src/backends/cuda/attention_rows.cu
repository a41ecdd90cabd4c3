// What attention does with each row by itself: the rope's angles, norm and rope of queries and
// keys, and keys and values into the kv cache. A warp takes a head of a row.
#include "backends/cuda/attention_parts.h"
#include "backends/cuda/launch.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

// ---- angles

struct AngleArgs {
  RopeTableArgs rope;
  const int32_t *positions, *rope_len;
  int32_t rows;
};

constexpr int kAngleThreads = 128;

// As ops/rope_frequencies.cc computes it: powers in f64, rounded to f32.
__device__ float stretched_frequency(const RopeTableArgs& rope, int length, int pair) {
  const double exponent = rope.dims / (rope.dims - 2.0);
  const float ratio = static_cast<float>(rope.ntk_factor) * static_cast<float>(length) /
                      static_cast<float>(rope.trained);
  const float stretch = ratio - static_cast<float>(rope.ntk_factor - 1);
  const float power = static_cast<float>(pow(static_cast<double>(stretch), exponent));
  const float base = static_cast<float>(rope.theta) * power;
  const float part = static_cast<float>(2 * pair) / static_cast<float>(rope.dims);
  return 1 / static_cast<float>(pow(static_cast<double>(base), static_cast<double>(part)));
}

__global__ void write_angles(AngleArgs args) {
  allow_next();
  wait_for_previous();
  const RopeTableArgs& rope = args.rope;
  const int pairs = rope.dims / 2;
  const int64_t at = int64_t{blockIdx.x} * kAngleThreads + threadIdx.x;
  if (at >= int64_t{args.rows} * pairs) return;
  const int row = static_cast<int>(at / pairs), pair = static_cast<int>(at % pairs);
  float frequency = 0;
  if (rope.trained == 0 || args.rope_len[row] <= rope.trained) {
    frequency = rope.inv_freq[pair];
  } else if (rope.ntk_factor == 0) {
    frequency = rope.long_inv_freq[pair];
  } else {
    frequency = stretched_frequency(rope, args.rope_len[row], pair);
  }
  // The angle is a float product, as in transformers.
  const float angle = static_cast<float>(args.positions[row]) * frequency;
  reinterpret_cast<float2*>(rope.table)[at] =
      make_float2(cosf(angle) * rope.factor, sinf(angle) * rope.factor);
}

// ---- rows

struct RowArgs {
  const float* qkv;
  const float* rope_table;
  const int32_t* slots;
  std::byte* blocks;
  void* q;
  KvLayout kv;
  NormVectors q_norm, k_norm;
  Outputs out;
  int32_t rows, heads, kv_heads, head_dim, rope_dims;
  bool rope_interleaved;
};

constexpr int kRowWarps = 8;

// A lane has elements lane + 32 i of a head; those from head_dim on are zero.
template <int kLane>
struct Head {
  float x[kLane];
};

template <int kLane>
__device__ Head<kLane> load_head(const float* from, int head_dim) {
  Head<kLane> head;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const int d = lane + i * kWarp;
    head.x[i] = d < head_dim ? from[d] : 0;
  }
  return head;
}

template <int kLane>
__device__ void norm_head(Head<kLane>& head, const NormVectors& norm, int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float count = static_cast<float>(head_dim);
  float mean = 0, squares = 0;
  if (norm.layer) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLane; ++i) sum += head.x[i];
    mean = warp_sum(sum) / count;
  }
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    head.x[i] = lane + i * kWarp < head_dim ? head.x[i] - mean : 0;
    squares = fmaf(head.x[i], head.x[i], squares);
  }
  const float factor = 1 / sqrtf(warp_sum(squares) / count + norm.eps);
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const int d = lane + i * kWarp;
    if (d >= head_dim) continue;
    const float scaled = head.x[i] * factor;
    head.x[i] = norm.bias ? fmaf(scaled, norm.gain[d], norm.bias[d]) : scaled * norm.gain[d];
  }
}

// Turns the first rope_dims; `shared` is the warp's, kMostHeadDim floats.
template <int kLane>
__device__ void turn_head(Head<kLane>& head, const RowArgs& a, int row, float* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int half = a.rope_dims / 2;
  const auto* const angles = reinterpret_cast<const float2*>(a.rope_table) + int64_t{row} * half;
#pragma unroll
  for (int i = 0; i < kLane; ++i) shared[lane + i * kWarp] = head.x[i];
  sync_warp();
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const int d = lane + i * kWarp;
    if (d >= a.rope_dims) continue;
    const bool first = a.rope_interleaved ? d % 2 == 0 : d < half;
    const int pair = a.rope_interleaved ? d / 2 : (first ? d : d - half);
    const int other = a.rope_interleaved ? (first ? d + 1 : d - 1) : (first ? d + half : d - half);
    const float2 angle = angles[pair];
    const float turned = shared[other] * angle.y;
    head.x[i] = fmaf(head.x[i], angle.x, first ? -turned : turned);
  }
}

// 32 elements of which a lane has one, as an 8-bit type stores them: see round_row in ops/dtype.h.
__device__ void store_block(float v, Stored stored, std::byte* code, uint16_t* scale_to) {
  const bool finite = ballot(fabsf(v) < INFINITY) == 0xffffffffu;
  const float most = warp_max(fabsf(v));
  uint16_t scale_bits = f16_of_float(most / (stored == Stored::kInt8 ? 127.0f : 448.0f));
  const float scale = float_of_f16(scale_bits);
  const bool fits = finite && scale < INFINITY;
  uint8_t bits = 0;
  if (fits && scale > 0) {
    const float steps = v * (1 / scale);
    bits = stored == Stored::kInt8
               ? static_cast<uint8_t>(static_cast<int8_t>(fminf(fmaxf(rintf(steps), -127), 127)))
               : e4m3_of_float(steps);
  }
  *reinterpret_cast<uint8_t*>(code) = bits;
  if (!fits) scale_bits = 0x7e00;  // a NaN, whatever the codes
  if (threadIdx.x % kWarp == 0) *scale_to = scale_bits;
}

template <int kLane>
__device__ void store_head(const Head<kLane>& head, const RowArgs& a, int slot, int kv_head,
                           bool value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int block = slot / a.kv.block_tokens, token = slot - block * a.kv.block_tokens;
  std::byte* const to =
      a.blocks + keys_at(a.kv, block, token, kv_head) + (value ? a.kv.values_at : 0);
  auto* const scales = reinterpret_cast<uint16_t*>(
      a.blocks + scales_at(a.kv, block, token, kv_head) + (value ? a.kv.value_scales_at : 0));
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const int d = lane + i * kWarp;
    if (i * kWarp >= a.kv.row_elements) continue;  // rows have whole blocks of 32
    const float v = head.x[i];
    switch (a.kv.stored) {
      case Stored::kF32:
        reinterpret_cast<float*>(to)[d] = v;
        break;
      case Stored::kF16:
        reinterpret_cast<uint16_t*>(to)[d] = f16_of_float(v);
        break;
      case Stored::kBF16:
        reinterpret_cast<uint16_t*>(to)[d] = bf16_of_float(v);
        break;
      default:
        store_block(v, a.kv.stored, to + d, scales + i);
    }
  }
}

template <int kLane>
__device__ void store_query(const Head<kLane>& head, const RowArgs& a, int row, int query_head) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t at = (int64_t{row} * a.heads + query_head) * (kLane * kWarp) + lane;
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    if (a.kv.stored == Stored::kF32) {
      static_cast<float*>(a.q)[at + i * kWarp] = head.x[i];
    } else {
      static_cast<uint16_t*>(a.q)[at + i * kWarp] =
          a.kv.stored == Stored::kBF16 ? bf16_of_float(head.x[i]) : bounded_f16(head.x[i]);
    }
  }
}

// What nobody else writes of `out`: a padding row's head, and the columns behind the last head.
__device__ void clear_out(const RowArgs& a, int row, int query_head, bool padding) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = query_head * a.head_dim;
  for (int d = lane; padding && d < a.head_dim; d += kWarp) put(a.out, row, first + d, 0);
  if (query_head > 0 || !a.out.rounded) return;
  for (int c = a.heads * a.head_dim + lane; c < a.out.rounded_stride; c += kWarp) {
    a.out.rounded[row * a.out.rounded_stride + c] = 0;
  }
}

template <int kLane>
__global__ void __launch_bounds__(kRowWarps* kWarp) take_rows(RowArgs a) {
  __shared__ float shared[kRowWarps][kLane * kWarp];
  allow_next();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int parts = a.heads + 2 * a.kv_heads;
  const int64_t item = int64_t{blockIdx.x} * kRowWarps + warp;
  const int row = static_cast<int>(item / parts), part = static_cast<int>(item % parts);
  // The step's arrays are uploaded: no kernel writes them.
  const int slot = row < a.rows ? a.slots[row] : -1;
  wait_for_previous();
  if (row >= a.rows) return;
  if (part < a.heads) clear_out(a, row, part, slot < 0);
  if (slot < 0) return;
  const float* const from = a.qkv + (int64_t{row} * parts + part) * a.head_dim;
  Head<kLane> head = load_head<kLane>(from, a.head_dim);
  const bool query = part < a.heads, value = part >= a.heads + a.kv_heads;
  if (!value) {
    const NormVectors& norm = query ? a.q_norm : a.k_norm;
    if (norm.gain) norm_head(head, norm, a.head_dim);
    if (a.rope_dims > 0) turn_head(head, a, row, shared[warp]);
  }
  if (query) {
    store_query(head, a, row, part);
    return;
  }
  store_head(head, a, slot, part - a.heads - (value ? a.kv_heads : 0), value);
}

}  // namespace

void rope_table(const Gpu& gpu, const RopeTableArgs& args) {
  const AngleArgs angles{args, args.step->positions, args.step->rope_len, args.step->rows};
  const int64_t count = int64_t{args.step->rows} * (args.dims / 2);
  launch<write_angles>(
      gpu,
      {.blocks_x = static_cast<uint32_t>((count + kAngleThreads - 1) / kAngleThreads),
       .threads = kAngleThreads},
      angles);
}

void prepare_rows(const Gpu& gpu, const AttentionArgs& args, const KvLayout& kv, int d, void* q) {
  const RowArgs rows{.qkv = args.qkv,
                     .rope_table = args.rope_table,
                     .slots = args.step.slots,
                     .blocks = args.kv.blocks,
                     .q = q,
                     .kv = kv,
                     .q_norm = args.q_norm,
                     .k_norm = args.k_norm,
                     .out = outputs_of(args.out),
                     .rows = args.step.rows,
                     .heads = args.heads,
                     .kv_heads = args.kv_heads,
                     .head_dim = args.head_dim,
                     .rope_dims = args.rope_table ? args.rope_dims : 0,
                     .rope_interleaved = args.rope_interleaved};
  const int64_t items = int64_t{rows.rows} * (rows.heads + 2 * rows.kv_heads);
  const LaunchShape shape{.blocks_x = static_cast<uint32_t>((items + kRowWarps - 1) / kRowWarps),
                          .threads = kRowWarps * kWarp};
  switch (d / kWarp) {
    case 1:
      return launch<take_rows<1>>(gpu, shape, rows);
    case 2:
      return launch<take_rows<2>>(gpu, shape, rows);
    case 3:
      return launch<take_rows<3>>(gpu, shape, rows);
    case 4:
      return launch<take_rows<4>>(gpu, shape, rows);
    default:
      return launch<take_rows<8>>(gpu, shape, rows);
  }
}

}  // namespace llorch::cuda
