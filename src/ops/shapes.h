// The argument checks that every backend runs before it computes, and the shape of each result. All
// throw Error{kInternal} "[op] what; got X, want Y". Knows no device and reads no tensor's values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ops/backend.h"

namespace llorch::shapes {

// A weight as error messages name it.
struct NamedShape {
  Shape shape;
  std::string_view name;
};

// A norm's vectors; `bias` has no rows if there is none.
struct NamedNorm {
  NormKind kind = NormKind::kRms;
  NamedShape gain = {}, bias = {};
};

// What a backend holds.
struct KvLimits {
  KvSpec spec;
  std::vector<int32_t> blocks = {};  // [G]
};

// Sizes, ranges and order of all arrays; slots must be where `blocks` puts their positions.
// A padding row (slot -1 in every group) may hold any position.
void batch(const Batch& batch, const KvLimits& kv);
// The same for the batch that prepare() measures: sizes and order alone.
void batch_to_measure(const Batch& batch, const KvSpec& kv);

// What a sequence's rows of a step may be: query_start[s] .. query_start[s + 1].
Shape embed(const Batch& batch, NamedShape table);           // [T, D]; checks token ids
Shape norm(Shape x, const NamedNorm& norm);                  // [T, D]
Shape add_norm(Shape x, Shape sum, const NamedNorm& norm);   // [T, D]
Shape add(Shape x, Shape sum);                               // [T, D]
Shape linear(Shape x, NamedShape weight);                    // [T, Out]
Shape mlp(Shape x, NamedShape gate_up, NamedShape down);     // [T, D]
Shape plain_mlp(Shape x, NamedShape up, NamedShape down);    // [T, D]
Shape logits(Shape x, const Batch& batch, NamedShape head);  // [L, V]
// [T, D]. `named` is how the backend names its weights.
Shape moe(Shape x, const Moe& moe, NamedShape (*named)(const Weight&));
// [T, H E]. Checks the spec, rope, norms and that every token a row sees lies in a block; what fell
// out of every row's window need not.
Shape attention(Shape qkv, const Attention& a, const Batch& batch, const KvLimits& kv,
                const NamedNorm& q_norm, const NamedNorm& k_norm);
// Without the block table, which prepare()'s batch has not got.
Shape attention_to_measure(Shape qkv, const Attention& a, const Batch& batch, const KvSpec& kv,
                           const NamedNorm& q_norm, const NamedNorm& k_norm);

// The stacked shape of pack()'s parts; checks byte counts, equal columns and the bias vectors.
Shape packed(std::span<const RawTensor> parts, std::span<const RawTensor> bias);
// What messages call the stacked weight: its parts' names joined by "+".
std::string packed_name(std::span<const RawTensor> parts);

void kv_spec(const KvSpec& spec, std::span<const int32_t> blocks);
void copy_block(size_t group, int32_t from, int32_t to, const KvLimits& kv);
void sampling(const Batch& batch, std::span<const Sampling> sampling);
// What a Forward gave back must be logits(), of this step.
void result(Shape result, const Batch& batch);

}  // namespace llorch::shapes
