// The wiring that all families but Phi share: pre-norm blocks of attention and a gated MLP or a
// mixture of experts. Knows no family and no checkpoint.
//
// A step is written for any tape: the device's Ops, or what has the same members, such as the one
// that checks a device (parity_ops.h).
#pragma once

#include <utility>

#include "model/model_config.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace llorch {

// An activation of a tape: Tensor, of Ops.
template <class Tape>
using TensorOf = decltype(std::declval<Tape&>().embed(std::declval<const Weight&>()));

// The parts, for families with a wiring of their own.
Norm norm_of(const ModelConfig& config, const NormWeights& weights);
// The norm before layer `index`, or what the head takes behind the last of `layers`.
Norm norm_before(const ModelConfig& config, const Weights& weights, int index, int layers);

// q, k, v and attention of layer `index`, [T, D] -> [T, D].
template <class Tape>
TensorOf<Tape> self_attention(Tape& op, const TensorOf<Tape>& x, const ModelConfig& config,
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

// The MLP of layer `index`, or its experts, [T, D] -> [T, D].
template <class Tape>
TensorOf<Tape> feed_forward(Tape& op, const TensorOf<Tape>& x, const ModelConfig& config,
                            const LayerWeights& layer, int index) {
  if (!config.moe.at(index)) {
    return op.mlp(x, layer.gate_up, layer.down, config.act);
  }
  const auto optional = [](const Weight& weight) { return weight ? &weight : nullptr; };
  return op.moe(x, Moe{.router = &layer.moe.router,
                       .gate_up = layer.moe.gate_up,
                       .down = layer.moe.down,
                       .top_k = config.moe.top_k,
                       .renormalize = config.moe.renormalize,
                       .act = config.act,
                       .shared_gate_up = optional(layer.moe.shared_gate_up),
                       .shared_down = optional(layer.moe.shared_down),
                       .shared_gate = optional(layer.moe.shared_gate)});
}

// What the head takes, [T] -> [T, D]: the first `layers` layers and the final norm. Pure; `config`
// and `weights` must outlive it, `config` also every use the device makes of its ropes.
template <class Tape>
TensorOf<Tape> decoder_step(Tape& op, const ModelConfig& config, const Weights& weights,
                            int layers) {
  auto sum = op.embed(weights.embed, config.embed_scale);
  auto x = op.norm(sum, norm_before(config, weights, 0, layers));
  for (int i = 0; i < layers; ++i) {
    const LayerWeights& layer = weights.layers[static_cast<size_t>(i)];
    x = self_attention(op, x, config, layer, i);
    if (layer.out_norm.gain) x = op.norm(x, norm_of(config, layer.out_norm));
    x = op.add_norm(x, &sum, norm_of(config, layer.mlp_norm));
    x = feed_forward(op, x, config, layer, i);
    if (layer.down_norm.gain) x = op.norm(x, norm_of(config, layer.down_norm));
    x = op.add_norm(x, &sum, norm_before(config, weights, i + 1, layers));
  }
  return x;
}

}  // namespace llorch
