// Every op in the plainest scalar form, summed in double: what conformance tests compare backends
// with. Knows no device, no paging and no speed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/backend.h"

namespace llorch::ref {

struct Matrix {  // row-major
  int rows = 0, cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int r, int c)
      : rows(r), cols(c), values(static_cast<size_t>(r) * static_cast<size_t>(c)) {}
  float& at(int r, int c) { return values[index(r, c)]; }
  float at(int r, int c) const { return values[index(r, c)]; }

 private:
  size_t index(int r, int c) const {
    return static_cast<size_t>(r) * static_cast<size_t>(cols) + static_cast<size_t>(c);
  }
};

// Keys (after norm and rope) and values of one sequence and layer, one row of kv_heads * head_dim
// a position, as stored in `type` head by head.
struct KvCache {
  DType type = DType::kF32;
  std::vector<std::vector<float>> keys, values;
};

struct NormSpec {
  NormKind kind = NormKind::kRms;
  float eps = 0;
  std::span<const float> gain = {}, bias = {};  // an empty bias is none
};

struct AttentionSpec {
  int heads = 0, kv_heads = 0, head_dim = 0, window = 0;
  float scale = 1, softcap = 0;
  const Rope* rope = nullptr;
  NormSpec q_norm = {}, k_norm = {};  // over head_dim; without a gain there is none
};

struct ExpertSpec {
  Matrix gate_up, down;
};

struct MoeSpec {
  Matrix router = {};
  std::vector<ExpertSpec> experts = {};
  int top_k = 0;
  bool renormalize = false;
  Act act = Act::kSilu;
  const ExpertSpec* shared = nullptr;       // null: none
  std::span<const float> shared_gate = {};  // empty: none
};

Matrix embed(const Matrix& table, std::span<const int32_t> tokens, float scale);
Matrix norm(const Matrix& x, const NormSpec& spec);
Matrix add(const Matrix& a, const Matrix& b);
Matrix linear(const Matrix& x, const Matrix& weight, std::span<const float> bias = {});
// What products with quantised weights take for x: in blocks of 32 columns, the nearest (ties to
// even) of 255 steps from minus to plus the highest magnitude; one that is below 1e-30 counts as 0.
Matrix rounded_to_int8(const Matrix& x);
Matrix mlp(const Matrix& x, const Matrix& gate_up, const Matrix& down, Act act);
Matrix plain_mlp(const Matrix& x, const Matrix& up, std::span<const float> up_bias,
                 const Matrix& down, std::span<const float> down_bias, Act act);
Matrix moe(const Matrix& x, const MoeSpec& spec);
// What each expert's result counts for a row of router logits; 0 for those it does not go to.
std::vector<double> expert_weights(std::span<const float> scores, int top_k, bool renormalize);
// Turns the first rope.dims of `head` by `position`.
void rope(std::span<float> head, const Rope& rope, int32_t position, int32_t rope_len = 0);
// Rows of one sequence at `positions`: writes their k, v into `cache`, then attends causally.
// `rope_len` is one for each row, or empty.
Matrix attention(const Matrix& qkv, std::span<const int32_t> positions, const AttentionSpec& spec,
                 KvCache* cache, std::span<const int32_t> rope_len = {});
Matrix logits(const Matrix& x, std::span<const int32_t> rows, const Matrix& head, float softcap);
double activate(double x, Act act);

}  // namespace llorch::ref
