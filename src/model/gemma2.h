// Gemma 2: soft caps, norms before and after each part, a window in every other layer.
#pragma once

#include "model/family.h"

namespace llorch {

struct Gemma2 : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 4,
                                            .head_dim = 256,
                                            .context = 8192,
                                            .act_key = "hidden_activation",
                                            .act = "gelu_pytorch_tanh",
                                            .tied_head = true};
  static void configure(const JsonReader& config, ModelConfig* out);
};

// What Gemma 3 shares.
void configure_gemma(const JsonReader& config, ModelConfig* out);
// null means that there is none; an absent key means `absent`.
float read_softcap(const JsonReader& config, const char* key, float absent);
// A window in all but every `pattern`-th layer, unless layer_types says otherwise.
void set_alternating_windows(const JsonReader& config, int64_t pattern, ModelConfig* out);

}  // namespace llorch
