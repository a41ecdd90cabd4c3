#include "model/model.h"

#include <utility>

namespace llorch {

Model Model::load(const Checkpoint& checkpoint, Backend& backend, const LoadOptions& options) {
  ModelConfig config = parse_model_config(checkpoint.config(), checkpoint.generation_config(),
                                          checkpoint.config_file());
  const DType dtype = options.dtype ? *options.dtype : stored_dtype(checkpoint, config);
  Weights weights = load_weights(checkpoint, config, backend, dtype, options.progress);
  switch (config.family) {
    case Family::kMistral:
      return {Mistral{std::move(config), std::move(weights)}, dtype};
    case Family::kQwen2:
      return {Qwen{std::move(config), std::move(weights)}, dtype};
    case Family::kLlama:
      break;
  }
  return {Llama{std::move(config), std::move(weights)}, dtype};
}

const ModelConfig& Model::config() const {
  return std::visit([](const auto& family) -> const ModelConfig& { return family.config; },
                    family_);
}

KvSpec Model::kv_spec(int block_tokens, DType type) const {
  const ModelConfig& c = config();
  return {.layers = c.layers,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .block_tokens = block_tokens,
          .type = type};
}

Forward Model::forward() const {
  return [this](Ops& op) {
    return std::visit([&op](const auto& family) { return family.step(op); }, family_);
  };
}

}  // namespace llorch
