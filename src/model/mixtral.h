// Mixtral: Mistral with a mixture of experts in every layer.
#pragma once

#include "model/family.h"

namespace llorch {

struct Mixtral : FamilyModel {
  static constexpr FamilyDefaults kDefaults{
      .kv_heads = 8, .context = 131'072, .norm_eps = 1e-5, .rope_theta = 1e6};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
