// Phi 1, 1.5 and 2: LayerNorm, attention and a plain MLP side by side, biases everywhere.
#pragma once

#include "model/decoder.h"
#include "model/family.h"

namespace llorch {

struct Phi : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.context = 2048,
                                            .norm_eps = 1e-5,
                                            .eps_key = "layer_norm_eps",
                                            .act = "gelu_new",
                                            .partial_rotary = true,
                                            .rotary_part = 0.5};
  static void configure(const JsonReader& config, ModelConfig* out);

  template <class Tape>
  TensorOf<Tape> step(Tape& op, int layers) const {
    auto sum = op.embed(weights.embed);
    auto x = op.norm(sum, norm_before(config, weights, 0, layers));
    for (int i = 0; i < layers; ++i) {
      const LayerWeights& layer = weights.layers[static_cast<size_t>(i)];
      auto both = self_attention(op, x, config, layer, i);
      op.add(op.plain_mlp(x, layer.gate_up, layer.down, config.act), &both);
      x = op.add_norm(both, &sum, norm_before(config, weights, i + 1, layers));
    }
    return x;
  }
};

}  // namespace llorch
