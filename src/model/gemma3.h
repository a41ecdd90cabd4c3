// Gemma 3's text models: norms on q and k, and a rope of their own for layers with a window.
#pragma once

#include "model/family.h"

namespace llorch {

struct Gemma3 : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 4,
                                            .head_dim = 256,
                                            .context = 131'072,
                                            .act_key = "hidden_activation",
                                            .act = "gelu_pytorch_tanh",
                                            .tied_head = true,
                                            .rope_theta = 1e6};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
