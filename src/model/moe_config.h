// config.json's keys about mixtures of experts.
#pragma once

#include "formats/json_reader.h"
#include "model/model_config.h"

namespace llorch {

// Where config.json does not say.
struct MoeDefaults {
  int experts = 0, top_k = 0, ffn = 0;
};

// Experts and top_k; `experts_key` is what the number of experts is called. Throws
// Error{kCorruptFile} naming the key.
MoeConfig read_moe(const JsonReader& config, const char* experts_key, const MoeDefaults& defaults);

// As Qwen has it: experts of their own size in every decoder_sparse_step-th layer that
// mlp_only_layers does not list.
MoeConfig read_qwen_moe(const JsonReader& config, const MoeDefaults& defaults, int layers);

// shared_expert_intermediate_size.
int read_shared_ffn(const JsonReader& config);

}  // namespace llorch
