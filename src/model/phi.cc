#include "model/phi.h"

#include "model/decoder.h"
#include "model/layer_types.h"

namespace llorch {

void Phi::configure(const JsonReader& config, ModelConfig* out) {
  out->norm_kind = NormKind::kLayer;
  out->qkv_bias = out->out_bias = out->head_bias = true;
  out->qk_norm = config.boolean("qk_layernorm").value_or(false);
  require_layer_types(config, out->layers, false);
}

Tensor Phi::step(Ops& op) const {
  Tensor sum = op.embed(weights.embed);
  Tensor x = op.norm(sum, norm_of(config, weights.layers[0].attn_norm));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const bool last = i + 1 == weights.layers.size();
    const NormWeights& next = last ? weights.norm : weights.layers[i + 1].attn_norm;
    Tensor both = self_attention(op, x, config, layer, static_cast<int>(i));
    op.add(op.plain_mlp(x, layer.gate_up, layer.down, config.act), &both);
    x = op.add_norm(both, &sum, norm_of(config, next));
  }
  return op.logits(x, weights.head);
}

}  // namespace llorch
