#include "model/model.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {

Model Model::load(const Checkpoint& checkpoint, Backend& backend, const LoadOptions& options) {
  ModelConfig config = parse_model_config(checkpoint.config(), checkpoint.generation_config(),
                                          checkpoint.config_file());
  const DType dtype = options.dtype ? *options.dtype : stored_dtype(checkpoint, config);
  config.embed_scale = rounded(config.embed_scale, dtype);  // as transformers does it
  Weights weights =
      load_weights(checkpoint, config, backend,
                   {.plain = dtype, .keep_blocks = !options.dtype, .quantize = options.quantize},
                   options.progress);
  const DType type = weights.type;
  const auto make = [&](auto family) -> Model {
    family.config = std::move(config);
    family.weights = std::move(weights);
    return {std::move(family), type};
  };
  switch (config.family) {
    case Family::kLlama:
      return make(Llama{});
    case Family::kMistral:
      return make(Mistral{});
    case Family::kMixtral:
      return make(Mixtral{});
    case Family::kPhi:
      return make(Phi{});
    case Family::kPhi3:
      return make(Phi3{});
    case Family::kQwen2:
      return make(Qwen2{});
    case Family::kQwen3:
      return make(Qwen3{});
    case Family::kQwen2Moe:
      return make(Qwen2Moe{});
    case Family::kQwen3Moe:
      return make(Qwen3Moe{});
    case Family::kGemma2:
      return make(Gemma2{});
    case Family::kGemma3:
      return make(Gemma3{});
    case Family::kSmolLm3:
      return make(SmolLm3{});
  }
  throw Error(ErrorCode::kInternal, "[model] a family without a model");
}

const ModelConfig& Model::config() const {
  return std::visit([](const auto& family) -> const ModelConfig& { return family.config; },
                    family_);
}

const Weights& Model::weights() const {
  return std::visit([](const auto& family) -> const Weights& { return family.weights; }, family_);
}

KvSpec Model::kv_spec(int block_tokens, DType type) const {
  const ModelConfig& c = config();
  return {.groups = c.kv.groups,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .block_tokens = block_tokens,
          .type = type};
}

int Model::recompute_above() const {
  for (const Rope& rope : config().ropes) {
    if (!rope.long_inv_freq.empty()) return rope.trained;
  }
  return 0;
}

int Model::stretched_above() const {
  int least = 0;
  for (const Rope& rope : config().ropes) {
    if (rope.ntk_factor == 0) continue;
    least = least == 0 ? rope.trained : std::min(least, rope.trained);
  }
  return least;
}

Forward Model::forward() const {
  return [this](Ops& op) {
    const ModelConfig& c = config();
    return op.logits(step(op, c.layers), weights().head, c.logit_softcap);
  };
}

}  // namespace llorch
