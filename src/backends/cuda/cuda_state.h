// What the CUDA backend holds and what a running step sees; shared by the cuda_*.cc files and by
// nobody else.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/common/arena.h"
#include "backends/cuda/energy_meter.h"
#include "backends/cuda/gpu.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/packed_weight.h"
#include "backends/cuda/products.h"
#include "backends/cuda/step_graphs.h"
#include "backends/cuda/step_input.h"
#include "base/error.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "ops/shapes.h"

namespace llorch {

// A tensor's memory: cols f32 of each row, row after row, and then, where it has them, the rows
// rounded to bf16, padded_columns(cols) of each.
template <>
struct Handle<TensorTag>::Impl {
  Arena* arena = nullptr;  // null for the logits, which have memory of their own
  uint64_t offset = 0;
  cuda::Activations data;       // null while measuring
  DType rounded = DType::kF32;  // what the rounded ones are; f32: there are none
  // Rows rounded otherwise, once a product has asked: to bf16, to f16.
  mutable Tensor late[2];

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
  cuda::PackedWeight packed;
  std::shared_ptr<std::atomic<uint64_t>> held_bytes;  // of all weights; outlives the backend

  ~Impl() { *held_bytes -= packed.bytes(); }
};

}  // namespace llorch

#include "backends/common/named.h"  // once a weight has a name

namespace llorch {

namespace cuda {

inline const float* vector_of(const Weight* weight) {
  if (weight == nullptr) return nullptr;
  return reinterpret_cast<const float*>(weight->impl->packed.rows[0].view.values);
}
inline NormVectors vectors_of(const Norm* norm) {
  if (norm == nullptr) return {};
  return {vector_of(norm->gain), vector_of(norm->bias), norm->eps, norm->kind == NormKind::kLayer};
}

// The kv blocks: group by group, in each layer after layer, block after block.
struct KvPool {
  shapes::KvLimits limits;
  std::vector<DeviceMemory> memory;  // [G]

  KvLayer layer(size_t group, int index) const {
    const int64_t bytes = kv_block_bytes(limits.spec);
    return {memory[group].data() + int64_t{index} * limits.blocks[group] * bytes, bytes,
            limits.spec.block_tokens, limits.spec.type};
  }
};

// A rope's frequencies on the device, and where its table of the step lies.
struct RopeTable {
  const Rope* rope = nullptr;
  DeviceMemory frequencies, table;
};

// What products with weights of a type read: f32, or that rounded to f16 or bf16.
inline DType input_type(DType weight) {
  return weight == DType::kF32 || weight == DType::kF16 ? weight : DType::kBF16;
}

// What a tensor has of a row: its f32 values, those rounded to a 16-bit type, or both.
struct Form {
  bool values = true;
  DType rounded = DType::kF32;  // f32: no rounded ones
};

// Steps of so many rows at most are replayed from graphs, and spread attention over the device.
constexpr int32_t kGraphRows = 64;
// Attention's scratch is for rows that see so many tokens at least.
constexpr int32_t kLeastLongest = 8192;

// What a step needs beside its tensors, the most of everything that prepare() measured.
struct Needs {
  StepSizes sizes;
  int32_t vocab = 0;        // of the logits
  int32_t embed_vocab = 0;  // token ids end here
  uint64_t product_scratch = 0;
  int32_t experts = 0;                   // of a mixture
  int32_t experts_of_row = 0;            // that a row goes to
  std::vector<AttentionArgs> attention;  // sizes alone; until scratch is allocated
  // One for each kv group and window: what a step that is replayed has to have blocks for.
  std::vector<Attention> attends;
};

struct State {
  explicit State(const BackendOptions& options);

  Gpu gpu;
  Uploader uploader;
  EnergyMeter meter;
  Products products;
  KvPool kv;
  std::shared_ptr<std::atomic<uint64_t>> weight_bytes = std::make_shared<std::atomic<uint64_t>>(0);
  // What products with the matrices packed so far round activations to, most of them; f32: none.
  DType rounds_to = DType::kF32;

  // Fixed by prepare().
  bool prepared = false;
  Needs needs;
  Arena arena;  // in units of 64 bytes per row, so that any number of rows gets the same layout
  DeviceMemory arena_memory, logits, attention_scratch, product_scratch, sample_scratch, routes;
  std::vector<std::unique_ptr<RopeTable>> ropes;
  std::map<std::pair<const void*, size_t>, DeviceMemory> expert_tables;  // of a weight's part
  // Made by the first step or recording after create_kv().
  std::unique_ptr<StepInput> input;
  StepGraphs graphs;
  int32_t recorded_vocab = 0;

  RopeTable& rope_table_of(const Rope& rope);
  uint64_t allocate_scratch();
  uint64_t allocate_rope(RopeTable& table, uint64_t rows);
  void allocate_input();
  int32_t longest_row() const;
  // From the arrays on the device to sampled tokens there. Returns the logits' columns.
  int32_t run_step(const Forward& f, Ops::Step* step);
  void check_replayed(const Batch& batch) const;
};

}  // namespace cuda

struct Backend::Impl : cuda::State {
  using State::State;
};

struct Ops::Step {
  cuda::State& cuda;
  const Batch& batch;  // while measuring or recording, its sizes alone mean something
  cuda::StepView view = {};
  bool measuring = false;  // nothing runs
  bool recording = false;  // for graphs
  std::vector<const Rope*> ropes_done = {};

  int32_t rows() const { return static_cast<int32_t>(batch.tokens.size()); }
  bool only_sizes() const { return measuring || recording; }
  // shape.rows is the step's or a multiple of them.
  Tensor make(Shape shape, cuda::Form form = {});
  // For what is likely to be multiplied next.
  cuda::Form product_form() const { return {true, cuda.rounds_to}; }
  // For what products with w alone read.
  static cuda::Form form_for(const Weight& w);
  // x with rows rounded to `type`; now, if it has none.
  cuda::Activations rounded_of(const Tensor& x, DType type);
  // A product with one part of a weight; measured alone, while measuring.
  void multiply_part(cuda::ProductArgs args);
  // out[i] = w x[rows[i]] for m rows; `rows` null: all.
  void multiply(const Tensor& x, const Weight& w, const int32_t* rows, int32_t m, float* out,
                float softcap);
  // `total` is x + sum then, if there is a sum.
  void norm(const Tensor& x, const Tensor* sum, const Tensor* total, const Norm& n,
            const Tensor& out);
  Tensor mlp(const Tensor& x, const Weight& up, const Weight& down, Act act, bool gated,
             Shape shape);

  cuda::StepArrays arrays_of(size_t group) const;
  const float* rope_angles(const Rope& rope, const cuda::StepArrays& arrays);
  void measure(const Attention& a, const cuda::AttentionArgs& args);

  cuda::RouteArgs routes_of(const Tensor& scores, const Moe& m);
  Tensor run_experts(const Tensor& x, const Moe& m, const cuda::RouteArgs& routes);
  cuda::Experts experts_of(std::span<const Weight> weights, size_t part, const int32_t* start);
  // `product` for every part of the experts' weights.
  void multiply_experts(std::span<const Weight> weights, const cuda::RouteArgs& routes,
                        const Tensor& x, const cuda::ProductArgs& product);
};

}  // namespace llorch
