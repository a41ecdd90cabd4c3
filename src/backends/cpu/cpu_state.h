// What the CPU backend holds and what a running step sees; shared by the cpu_*.cc files and by
// nobody else.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "backends/common/arena.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/memory.h"
#include "backends/cpu/packed_weight.h"
#include "backends/cpu/thread_pool.h"
#include "base/error.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "ops/sampling.h"
#include "ops/shapes.h"

namespace llorch {

template <>
struct Handle<TensorTag>::Impl {
  Arena* arena = nullptr;  // null for the logits, which have memory of their own
  uint64_t offset = 0;
  float* data = nullptr;  // row after row; null while measuring
  uint64_t rounding = 0;  // which of State::roundings is of these values; 0: none

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (arena) arena->give(offset);
  }
};

template <>
struct Handle<WeightTag>::Impl {
  std::string name;
  cpu::PackedWeight packed;
  std::shared_ptr<std::atomic<uint64_t>> held_bytes;  // of all weights; outlives the backend

  ~Impl() { *held_bytes -= packed.bytes(); }
};

}  // namespace llorch

#include "backends/common/named.h"  // once a weight has a name

namespace llorch {

namespace cpu {

inline const float* vector_of(const Weight* weight) {
  return weight ? weight->impl->packed.vector() : nullptr;
}

inline RowNorm vectors_of(const Norm* norm) {
  if (norm == nullptr) return {};
  return {vector_of(norm->gain), vector_of(norm->bias), norm->eps, norm->kind == NormKind::kLayer};
}

// The kv blocks: group by group, in each layer after layer, block after block.
struct KvPool {
  shapes::KvLimits limits;
  std::vector<Memory> memory;  // [G]

  // Elements of a head's row: whole vectors of any instruction set, and whole blocks of q8_0.
  static int32_t row_of(const KvSpec& spec) {
    const int32_t whole = spec.type == DType::kQ8_0 ? kKvQ8Block : 16;
    return (spec.head_dim + whole - 1) / whole * whole;
  }
  // Keys, or values, of one head in one block and layer.
  static uint64_t head_bytes(const KvSpec& spec) {
    return row_bytes(spec.type, int64_t{spec.block_tokens} * row_of(spec));
  }
  static uint64_t half_bytes(const KvSpec& spec) {  // of all heads
    return uint64_t(spec.kv_heads) * head_bytes(spec);
  }
  KvLayer layer(size_t group, int index) const {
    const auto half = static_cast<int64_t>(half_bytes(limits.spec));
    return {memory[group].data() + int64_t{index} * limits.blocks[group] * 2 * half,
            2 * half,
            half,
            static_cast<int64_t>(head_bytes(limits.spec)),
            limits.spec.block_tokens,
            row_of(limits.spec)};
  }
};

// A row on its way to an expert.
struct Route {
  int32_t expert, row;
  float weight;
};

// Most of everything that a step may need, as prepare() measured it.
struct Needs {
  int32_t rows = 0, logit_rows = 0, vocab = 0;
  int32_t queries = 0, kv_row = 0;  // of an attention tile
  size_t routes = 0;
  std::vector<const Rope*> ropes;
  int32_t rope_pairs = 0;  // of any of them
};

// Rows of one sequence that attention treats together, and the pieces that hold what they see.
struct RowTile {
  int32_t sequence, first_row, rows;
  int32_t first_piece, end_piece;
};

struct State {
  explicit State(const BackendOptions& options);

  const Kernels& kernels;
  ThreadPool pool;
  KvPool kv;
  std::shared_ptr<std::atomic<uint64_t>> weight_bytes = std::make_shared<std::atomic<uint64_t>>(0);

  // Fixed by prepare().
  bool prepared = false;
  Needs needs;
  Arena arena;  // in units of 64 bytes per row, so that any number of rows gets the same layout
  int32_t most_columns = 0;  // of the bf16 weights
  int32_t most_quantised_columns = 0;
  Memory arena_memory, logits, rope_tables;
  Memory states;  // of attention's pairs and pieces; see Ops::Step::attend()
  Memory split;   // the rows that Kernels::split_row has split last
  Memory quantised_values, quantised_blocks;  // and those that Kernels::quantise_row has
  uint64_t roundings = 0;                     // how often they were filled
  std::vector<Memory> thread_scratch;
  std::vector<SamplingScratch> sampling_scratch;
  std::vector<const float*> row_pointers;
  std::vector<RowTile> tiles;
  std::vector<Route> routes;

  std::vector<Sampled> results;

  float* scratch_of(int thread) const {
    return thread_scratch[static_cast<size_t>(thread)].as<float>();
  }
  // Attention spreads the pieces of fewer pairs than this.
  int most_split_pairs() const { return 4 * pool.threads(); }
  // There are three for each such pair: one of its own, two for pieces.
  float* state(int index) const {
    return states.as<float>() + static_cast<uint64_t>(index) * state_floats();
  }
  uint64_t state_floats() const {
    return static_cast<uint64_t>(needs.queries) * static_cast<uint64_t>(needs.kv_row + 2);
  }
  // Cosines, then sines, [T][dims / 2] each, of needs.ropes[index].
  float* rope_table(size_t index) const;
  uint64_t allocate_scratch();
  // The first `m` of row_pointers, `cols` long.
  const uint16_t* split_rows(int32_t m, int32_t cols);
  void quantise_rows(int32_t m, int32_t cols);
  // Where `m` rows of `cols` go when Kernels::quantise_row rounds them.
  QuantisedRows quantised_rows(int32_t m, int32_t cols) const;
  // Whether the last rounding was of x.
  bool is_rounded(const Tensor& x) const { return roundings > 0 && x.impl->rounding == roundings; }
  void sample_rows(const Tensor& logits_tensor, std::span<const Sampling> sampling);

  // Calls body(first, last, thread) for pieces of `rows` that each touch some 16 thousand floats.
  template <class Body>
  void for_rows(int32_t rows, int64_t floats_per_row, Body&& body) {
    constexpr int64_t kPiece = 16384;
    const auto piece = static_cast<int32_t>(
        std::clamp<int64_t>(kPiece / std::max<int64_t>(floats_per_row, 1), 1, rows));
    pool.parallel_for((rows - 1) / piece + 1, [&](int task, int thread) {
      body(task * piece, std::min(rows, (task + 1) * piece), thread);
    });
  }
};

}  // namespace cpu

struct Backend::Impl : cpu::State {
  using State::State;
};

struct Ops::Step {
  cpu::State& cpu;
  const Batch& batch;
  bool measuring = false;
  std::vector<bool> rope_done = {};

  int32_t rows() const { return static_cast<int32_t>(batch.tokens.size()); }
  Tensor make(Shape shape);
  // Makes cpu.row_pointers name `m` rows `x_stride` floats apart.
  void point_rows(const float* x, int64_t x_stride, int32_t m);
  // out[i] = w * x[i] for the `m` rows that cpu.row_pointers names; `rounded` if the last rounding
  // was theirs.
  void multiply_pointed(int32_t m, const Weight& w, float* out, float softcap, bool rounded);
  void multiply_panels(const cpu::Matmul& args, cpu::MatmulKernel kernel);
  // The same for all rows of x.
  void multiply(const Tensor& x, const Weight& w, float* out);
  // Norm of each row, and its rounding while it is at hand; `total` is x + sum then, if there is
  // one.
  void norm(const Tensor& x, const Tensor* sum, const Tensor* total, const Norm& n,
            const Tensor& out);
  // The MLP of the `m` rows that cpu.row_pointers names. If `gated`, `up` stacks the gate's rows
  // over its own. `hidden` holds up.shape.rows floats a row.
  void mlp_pointed(int32_t m, const Weight& up, const Weight& down, Act act, bool gated,
                   float* hidden, float* out, bool rounded);
  Tensor mlp(const Tensor& x, const Weight& up, const Weight& down, Act act, bool gated,
             Shape shape);
  // Fills cpu.routes from [T, X] logits: row after row its top_k experts, ascending.
  void choose_experts(const Tensor& logits, int top_k, bool renormalize);
  // Adds to `out` what the experts make of the rows that cpu.routes send them, and sorts those.
  // `hidden` and `part` have room for every row.
  void run_experts(const Tensor& x, const Moe& m, float* hidden, float* part, float* out);
  void use_rope(const Rope& rope, cpu::Attend* args);
  void make_tiles(const Attention& a, int32_t rows_per_tile);
  void attend(const cpu::Attend& args, size_t group);
};

}  // namespace llorch
