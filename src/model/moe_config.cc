#include "model/moe_config.h"

#include <string>
#include <vector>

namespace llorch {
namespace {

int read_size(const JsonReader& config, const char* key, int most, int otherwise) {
  return static_cast<int>(config.integer(key, 1, most).value_or(otherwise));
}

}  // namespace

MoeConfig read_moe(const JsonReader& config, const char* experts_key, const MoeDefaults& defaults) {
  MoeConfig moe;
  moe.experts = read_size(config, experts_key, kMaxExperts, defaults.experts);
  moe.top_k = read_size(config, "num_experts_per_tok", kMaxExperts, defaults.top_k);
  if (moe.experts == 1) {
    config.unsupported(experts_key, "a mixture of one expert is not supported");
  }
  if (moe.top_k > moe.experts) {
    config.corrupt("num_experts_per_tok", std::to_string(moe.top_k) + " are more than the " +
                                              std::to_string(moe.experts) + " experts");
  }
  return moe;
}

MoeConfig read_qwen_moe(const JsonReader& config, const MoeDefaults& defaults, int layers) {
  // transformers 5 reads both names, and writes the latter.
  const char* experts_key = config.contains("num_experts") ? "num_experts" : "num_local_experts";
  MoeConfig moe = read_moe(config, experts_key, defaults);
  moe.ffn = read_size(config, "moe_intermediate_size", kMaxFfn, defaults.ffn);
  moe.renormalize = config.boolean("norm_topk_prob").value_or(false);
  const int64_t step = config.integer("decoder_sparse_step", 1, INT32_MAX).value_or(1);
  for (int64_t i = 0; i < layers; ++i) {
    moe.layers.push_back((i + 1) % step == 0);
  }
  const auto dense = config.integers("mlp_only_layers", 0, INT32_MAX);
  for (const int64_t layer : dense.value_or(std::vector<int64_t>{})) {
    if (layer < layers) {
      moe.layers[static_cast<size_t>(layer)] = false;
    }
  }
  return moe;
}

int read_shared_ffn(const JsonReader& config) {
  return read_size(config, "shared_expert_intermediate_size", kMaxFfn, 5632);
}

}  // namespace llorch
