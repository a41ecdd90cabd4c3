#include "model/decoder.h"

#include <cmath>

namespace llorch {

Tensor decoder_step(Ops& op, const ModelConfig& config, const Weights& weights) {
  Attention attention{.heads = config.heads,
                      .kv_heads = config.kv_heads,
                      .head_dim = config.head_dim,
                      .scale = static_cast<float>(1 / std::sqrt(config.head_dim)),
                      .rope = &config.rope};
  const auto norm = [&](const Weight& gain) {
    return Norm{NormKind::kRms, config.norm_eps, &gain};
  };
  Tensor sum = op.embed(weights.embed);
  Tensor x = op.norm(sum, norm(weights.layers[0].attn_norm));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const bool last = i + 1 == weights.layers.size();
    attention.layer = static_cast<int>(i);
    attention.window = config.window[i];
    x = op.attention(op.linear(x, layer.qkv), attention);
    x = op.add_norm(op.linear(x, layer.out), &sum, norm(layer.mlp_norm));
    x = op.mlp(x, layer.gate_up, layer.down, config.act);
    x = op.add_norm(x, &sum, norm(last ? weights.norm : weights.layers[i + 1].attn_norm));
  }
  return op.logits(x, weights.head);
}

}  // namespace llorch
