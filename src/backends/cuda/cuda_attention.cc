// Attention on the GPU: the step's arrays and tables for attention.cu.
#include <algorithm>

#include "backends/cuda/cuda_state.h"

namespace llorch {

cuda::RopeTable& cuda::State::rope_table_of(const Rope& rope) {
  for (const auto& table : ropes) {
    if (table->rope == &rope) return *table;
  }
  throw Error(ErrorCode::kInternal, "[attention] a rope that prepare() did not see");
}

cuda::StepArrays Ops::Step::arrays_of(size_t group) const {
  return {.positions = view.positions,
          .query_start = view.query_start,
          .slots = view.slots[group],
          .blocks = view.blocks[group],
          .rope_len = view.rope_len,
          .row_sequence = view.row_sequence,
          .rows = view.sizes.rows,
          .sequences = view.sizes.sequences,
          .blocks_per_sequence = view.sizes.table_width,
          .longest = view.sizes.longest,
          .most_queries = view.sizes.most_queries};
}

// The angles of this step's rows, computed once for all layers.
const float* Ops::Step::rope_angles(const Rope& rope, const cuda::StepArrays& arrays) {
  cuda::RopeTable& table = cuda.rope_table_of(rope);
  if (std::ranges::find(ropes_done, &rope) == ropes_done.end()) {
    ropes_done.push_back(&rope);
    const auto* const frequencies = table.frequencies.as<float>();
    cuda::rope_table(
        cuda.gpu,
        {.inv_freq = frequencies,
         .long_inv_freq = rope.long_inv_freq.empty() ? nullptr : frequencies + rope.dims / 2,
         .dims = rope.dims,
         .trained = rope.trained,
         .factor = rope.factor,
         .theta = rope.theta,
         .ntk_factor = rope.ntk_factor,
         .step = &arrays,
         .table = table.table.as<float>()});
  }
  return table.table.as<float>();
}

namespace {

cuda::AttentionArgs arguments(const Attention& a) {
  return {.heads = a.heads,
          .kv_heads = a.kv_heads,
          .head_dim = a.head_dim,
          .window = a.window,
          .scale = a.scale,
          .softcap = a.softcap,
          .rope_dims = a.rope ? a.rope->dims : 0,
          .rope_interleaved = a.rope != nullptr && a.rope->interleaved,
          .q_norm = cuda::vectors_of(a.q_norm),
          .k_norm = cuda::vectors_of(a.k_norm)};
}

}  // namespace

// Remembers ropes, scratch and windows of what prepare() runs.
void Ops::Step::measure(const Attention& a, const cuda::AttentionArgs& args) {
  cuda::Needs& needs = cuda.needs;
  if (a.rope && a.rope->dims > 0) {
    const bool known =
        std::ranges::any_of(cuda.ropes, [&](const auto& table) { return table->rope == a.rope; });
    if (!known) {
      cuda.ropes.push_back(std::make_unique<cuda::RopeTable>());
      cuda.ropes.back()->rope = a.rope;
    }
  }
  needs.attention.push_back(args);
  const auto group = static_cast<size_t>(a.group);
  const bool seen = std::ranges::any_of(needs.attends, [&](const Attention& other) {
    return static_cast<size_t>(other.group) == group && other.window == a.window;
  });
  if (seen) return;
  needs.attends.push_back(a);
  needs.attends.back().rope = nullptr;
  needs.attends.back().q_norm = needs.attends.back().k_norm = nullptr;
}

Tensor Ops::attention(const Tensor& qkv, const Attention& a) {
  auto& cuda = step->cuda;
  const shapes::KvLimits& limits = cuda.kv.limits;
  const Shape shape =
      step->only_sizes()
          ? shapes::attention_to_measure(qkv.shape, a, step->batch, limits.spec, named(a.q_norm),
                                         named(a.k_norm))
          : shapes::attention(qkv.shape, a, step->batch, limits, named(a.q_norm), named(a.k_norm));
  Tensor out = step->make(shape, step->product_form());
  cuda::AttentionArgs args = arguments(a);
  const auto group = static_cast<size_t>(a.group);
  args.kv.type = limits.spec.type;
  args.kv.block_tokens = limits.spec.block_tokens;
  if (step->measuring) {
    step->measure(a, args);
    return out;
  }
  args.qkv = qkv.impl->data.values;
  args.step = step->arrays_of(group);
  if (args.rope_dims > 0) args.rope_table = step->rope_angles(*a.rope, args.step);
  args.kv = cuda.kv.layer(group, a.layer);
  args.out = out.impl->data;
  args.scratch = cuda.attention_scratch.data();
  args.scratch_bytes = cuda.attention_scratch.bytes();
  cuda::attention(cuda.gpu, args);
  return out;
}

}  // namespace llorch
