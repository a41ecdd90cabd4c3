#include "model/decoder.h"

namespace llorch {
namespace {

Tensor feed_forward(Ops& op, const Tensor& x, const ModelConfig& config, const LayerWeights& layer,
                    int index) {
  if (!config.moe.at(index)) {
    return op.mlp(x, layer.gate_up, layer.down, config.act);
  }
  const auto optional = [](const Weight& weight) { return weight ? &weight : nullptr; };
  return op.moe(x, {.router = &layer.moe.router,
                    .gate_up = layer.moe.gate_up,
                    .down = layer.moe.down,
                    .top_k = config.moe.top_k,
                    .renormalize = config.moe.renormalize,
                    .act = config.act,
                    .shared_gate_up = optional(layer.moe.shared_gate_up),
                    .shared_down = optional(layer.moe.shared_down),
                    .shared_gate = optional(layer.moe.shared_gate)});
}

}  // namespace

Norm norm_of(const ModelConfig& config, const NormWeights& weights) {
  return {config.norm_kind, config.norm_eps, &weights.gain, weights.bias ? &weights.bias : nullptr};
}

Tensor self_attention(Ops& op, const Tensor& x, const ModelConfig& config,
                      const LayerWeights& layer, int index) {
  const auto i = static_cast<size_t>(index);
  const Norm q_norm = norm_of(config, layer.q_norm), k_norm = norm_of(config, layer.k_norm);
  const int rope = config.rope_of_layer[i];
  const Attention attention{.group = config.kv.of_layer[i].group,
                            .layer = config.kv.of_layer[i].layer,
                            .heads = config.heads,
                            .kv_heads = config.kv_heads,
                            .head_dim = config.head_dim,
                            .window = config.window[i],
                            .scale = config.attention_scale,
                            .softcap = config.attention_softcap,
                            .rope = rope < 0 ? nullptr : &config.ropes[static_cast<size_t>(rope)],
                            .q_norm = config.qk_norm ? &q_norm : nullptr,
                            .k_norm = config.qk_norm ? &k_norm : nullptr};
  return op.linear(op.attention(op.linear(x, layer.qkv), attention), layer.out);
}

Tensor decoder_step(Ops& op, const ModelConfig& config, const Weights& weights) {
  Tensor sum = op.embed(weights.embed, config.embed_scale);
  Tensor x = op.norm(sum, norm_of(config, weights.layers[0].attn_norm));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const bool last = i + 1 == weights.layers.size();
    const NormWeights& next = last ? weights.norm : weights.layers[i + 1].attn_norm;
    x = self_attention(op, x, config, layer, static_cast<int>(i));
    if (layer.out_norm.gain) x = op.norm(x, norm_of(config, layer.out_norm));
    x = op.add_norm(x, &sum, norm_of(config, layer.mlp_norm));
    x = feed_forward(op, x, config, layer, static_cast<int>(i));
    if (layer.down_norm.gain) x = op.norm(x, norm_of(config, layer.down_norm));
    x = op.add_norm(x, &sum, norm_of(config, next));
  }
  return op.logits(x, weights.head, config.logit_softcap);
}

}  // namespace llorch
