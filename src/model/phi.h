// Phi 1, 1.5 and 2: LayerNorm, attention and a plain MLP side by side, biases everywhere.
#pragma once

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
  Tensor step(Ops& op) const;
};

}  // namespace llorch
