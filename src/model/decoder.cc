#include "model/decoder.h"

namespace llorch {

Norm norm_of(const ModelConfig& config, const NormWeights& weights) {
  return {config.norm_kind, config.norm_eps, &weights.gain, weights.bias ? &weights.bias : nullptr};
}

Norm norm_before(const ModelConfig& config, const Weights& weights, int index, int layers) {
  return norm_of(
      config, index < layers ? weights.layers[static_cast<size_t>(index)].attn_norm : weights.norm);
}

}  // namespace llorch
