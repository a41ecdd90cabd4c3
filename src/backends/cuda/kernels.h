// What each op family of the CUDA backend starts on the stream: arguments of plain pointers into
// device memory, checked by the caller (ops/shapes.h). Knows no tensor, no arena and no model.
//
// One answer: what is computed for a row depends on that row alone (and on the kv cache it sees),
// never on how many rows there are, which rows those are, or on the device's size. Sums therefore
// run in an order that the shapes of weights and the positions of tokens fix.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cuda/gpu.h"
#include "ops/backend.h"

namespace llorch::cuda {

// Weights' rows and rounded activations are padded with zeros to a multiple of so many columns.
constexpr int32_t kColumnStep = 64;
constexpr int32_t padded_columns(int32_t columns) {
  return (columns + kColumnStep - 1) / kColumnStep * kColumnStep;
}

// Rows of activations [m, cols]: as computed, `stride` floats apart, and rounded to 16 bits for
// products with weights that are not f32, padded_columns(cols) apart, zeros behind cols. Products
// with f32 weights read the former, with f16 weights f16, all others bf16; null where there is
// none.
struct Activations {
  float* values = nullptr;
  uint16_t* rounded = nullptr;
  DType rounded_type = DType::kBF16;  // or f16, where what is finite stays so (bounded_f16())
  int32_t cols = 0;
  int64_t stride = 0;
  int64_t rounded_stride() const { return padded_columns(cols); }
};

// ---- pointwise.cu

struct SampledRow;  // below

struct NormVectors {  // null gain: no norm
  const float* gain = nullptr;
  const float* bias = nullptr;
  float eps = 0;
  bool layer = false;  // LayerNorm, else RMSNorm
};

// Rows of a weight matrix that share a stored type, as products and embed() read them.
struct WeightRows {
  // f32, f16, bf16: row after row, padded_columns(cols) elements apart. Other types: see
  // quantised_layout.h.
  const std::byte* values = nullptr;
  const std::byte* scales = nullptr;  // of quantised types
  const float* bias = nullptr;        // [rows], or none
  int32_t rows = 0, cols = 0;
  DType type = DType::kF32;
};

// out[i] = scale * w's row ids[i] - first_row, for those i whose row lies in w. Exact.
struct EmbedArgs {
  WeightRows w = {};
  int32_t first_row = 0;
  const int32_t* ids = nullptr;  // [m]
  int32_t m = 0;
  float scale = 1;
  Activations out = {};
};
void embed(const Gpu& gpu, const EmbedArgs& args);            // f32, f16, bf16
void embed_quantised(const Gpu& gpu, const EmbedArgs& args);  // the rest; quantised_product.cu

// total = x + sum (if there is a sum; `total` may be neither), out = norm of it.
struct NormArgs {
  const float* x = nullptr;
  const float* sum = nullptr;
  float* total = nullptr;
  NormVectors norm = {};
  Activations out = {};
  int32_t m = 0;
};
void norm(const Gpu& gpu, const NormArgs& args);

// total = x + sum, of `count` floats; and rounded, if `total.rounded`.
void add(const Gpu& gpu, const float* x, const float* sum, Activations total, int32_t m);

// hidden = act(gate) * up, or act(up): `up` has rows of 2 F floats, the gate first, or of F.
struct ActivateArgs {
  const float* up = nullptr;
  bool gated = false;
  Act act = Act::kSilu;
  Activations hidden = {};  // [m, F]
  int32_t m = 0;
};
void activate(const Gpu& gpu, const ActivateArgs& args);

// x.rounded from x.values.
void round_rows(const Gpu& gpu, const Activations& x, int32_t m);
// ids[i], or where that is -1 - r the token that `sampled`[r] is (0 for none): [m].
void resolve_tokens(const Gpu& gpu, int32_t* ids, int32_t m, const SampledRow* sampled);

// ---- product.cu (f32, f16, bf16) and quantised_product.cu

// The experts of a mixture, by index: their rows of x are those of product rows start[e] up to
// start[e + 1]. All of one type and shape.
struct Experts {
  const WeightRows* weights = nullptr;  // device memory, [count]
  const int32_t* start = nullptr;       // device memory, [count + 1]
  int32_t count = 0;                    // 0: there are none
};

// out[i][n] = x[rows[i]] . w[n] + bias[n], for i < m. f32 weights: fmaf over the columns in order,
// from zero. Others: sums of 16-bit products on tensor cores (see product_tile.h). With experts,
// `w` tells type and shape, its pointers are not read, and product row i takes the weights of its
// expert.
struct ProductArgs {
  WeightRows w = {};
  Activations x = {};
  const int32_t* rows = nullptr;  // [m] device memory; null: i itself
  int32_t m = 0;
  float* out = nullptr;  // its first row's value of w's first row
  int64_t out_stride = 0;
  float softcap = 0;  // 0: off; else cap * tanh(v / cap)
  Experts experts = {};
  // For quantised_product() alone, 256-byte aligned. With less than quantised_scratch_bytes(), or
  // none, narrow weights leave much of the device idle for some dozens of rows; the bits are the
  // same.
  std::byte* scratch = nullptr;
  uint64_t scratch_bytes = 0;
};
// For weights of that shape, up to m rows.
uint64_t quantised_scratch_bytes(int32_t rows, int32_t cols, int32_t m);
void product(const Gpu& gpu, const ProductArgs& args);            // f32, f16, bf16
void quantised_product(const Gpu& gpu, const ProductArgs& args);  // the rest

// ---- attention.cu

// The step's arrays on the device; see Batch.
struct StepArrays {
  const int32_t* positions = nullptr;     // [T]
  const int32_t* query_start = nullptr;   // [S + 1]
  const int32_t* slots = nullptr;         // [T], of the group in question
  const int32_t* blocks = nullptr;        // [S, N], of the group in question
  const int32_t* rope_len = nullptr;      // [T]
  const int32_t* row_sequence = nullptr;  // [T] the sequence of a row
  int32_t rows = 0, sequences = 0, blocks_per_sequence = 0;
  int32_t longest = 0;       // no row sees more tokens than this; a capacity, not a count
  int32_t most_queries = 0;  // no sequence has more rows than this; a capacity
};

// Angles of the step's rows for one Rope: (cos, sin) * factor, [T][dims / 2] pairs.
struct RopeTableArgs {
  const float* inv_freq = nullptr;       // [dims / 2]
  const float* long_inv_freq = nullptr;  // or null
  int32_t dims = 0, trained = 0;
  float factor = 1;
  double theta = 0, ntk_factor = 0;  // see Rope and ops/rope_frequencies.h
  const StepArrays* step = nullptr;
  float* table = nullptr;
};
void rope_table(const Gpu& gpu, const RopeTableArgs& args);

// One layer's part of the kv cache. Token `slot` of block slot / block_tokens: its keys (after norm
// and rope) and values lie at block * block_bytes; attention.cu decides how.
struct KvLayer {
  std::byte* blocks = nullptr;
  int64_t block_bytes = 0;
  int32_t block_tokens = 0;
  DType type = DType::kF32;
};
// Keys and values of all heads in one block and layer: exactly what the type takes for head_dim
// rounded up to 32; a multiple of 16.
int64_t kv_block_bytes(const KvSpec& spec);

struct AttentionArgs {
  const float* qkv = nullptr;  // [T, (heads + 2 kv_heads) head_dim]
  StepArrays step = {};
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  int32_t window = 0;
  float scale = 1, softcap = 0;
  const float* rope_table = nullptr;  // null: none
  int32_t rope_dims = 0;
  bool rope_interleaved = false;
  NormVectors q_norm = {}, k_norm = {};
  KvLayer kv = {};
  Activations out = {};  // [T, heads head_dim]; a padding row (slot -1) gives zeros
  // 256-byte aligned. With less than attention_scratch_bytes(), but at least
  // least_attention_scratch_bytes(), no row is split over blocks; the bits are the same.
  std::byte* scratch = nullptr;
  uint64_t scratch_bytes = 0;
};
uint64_t attention_scratch_bytes(const AttentionArgs& args);
uint64_t least_attention_scratch_bytes(const AttentionArgs& args);
void attention(const Gpu& gpu, const AttentionArgs& args);

// ---- experts.cu

// Where the rows of a step go: row after row its top_k experts (the lowest index on a tie).
struct RouteArgs {
  const float* logits = nullptr;  // [T, count]
  int32_t m = 0, count = 0, top_k = 0;
  bool renormalize = false;
  int32_t* start = nullptr;  // out: [count + 1] first product row of each expert
  int32_t* rows = nullptr;   // out: [m top_k] the row of x of each product row, by expert, then row
  int32_t* places = nullptr;  // out: [m, top_k] product rows of each row, by ascending expert
  float* weights = nullptr;   // out: [m, top_k] and what they count
};
void route(const Gpu& gpu, const RouteArgs& args);

// out[i] = sum over k of weights[i, k] * parts[places[i, k]], in order, + shared[i] *
// sigmoid(gates[i]) (or * 1).
struct MixArgs {
  const float* parts = nullptr;  // [m top_k, cols]
  const int32_t* places = nullptr;
  const float* weights = nullptr;
  const float* shared = nullptr;  // [m, cols], or none
  const float* gates = nullptr;   // [m], or none
  int32_t m = 0, top_k = 0;
  Activations out = {};
};
void mix(const Gpu& gpu, const MixArgs& args);

// ---- sampling.cu

constexpr int32_t kMostTopLogprobs = 20;

// ops/backend.h's Sampling as the device reads it.
struct RowSampling {
  float temperature, top_p, min_p, repetition_penalty;
  int32_t top_k;
  uint32_t index;
  uint64_t seed;
  int32_t top_logprobs;
  int32_t seen;  // row of the `seen` bits; -1: no penalty
};
struct SampledRow {
  int32_t token;
  float logprob;
  int32_t top_token[kMostTopLogprobs];
  float top_logprob[kMostTopLogprobs];
};
// Each row of logits becomes a token as ops/sampling.h's sample() has it.
struct SampleArgs {
  const float* logits = nullptr;  // [m, vocab]
  int32_t m = 0, vocab = 0;
  const RowSampling* sampling = nullptr;  // [m]
  const uint32_t* seen = nullptr;         // rows of (vocab + 31) / 32 words, a bit a token
  std::byte* scratch = nullptr;           // sample_scratch_bytes(), 256-byte aligned
  SampledRow* out = nullptr;              // [m]
};
uint64_t sample_scratch_bytes(int32_t m, int32_t vocab);
void sample(const Gpu& gpu, const SampleArgs& args);

}  // namespace llorch::cuda
