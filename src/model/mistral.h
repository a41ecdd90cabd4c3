// Mistral: no biases, one sliding window for all layers.
#pragma once

#include "model/family.h"

namespace llorch {

struct Mistral : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 8, .context = 131'072};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
