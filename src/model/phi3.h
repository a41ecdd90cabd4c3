// Phi 3, 3.5 and 4: fused projections, longrope, one sliding window for all layers.
#pragma once

#include "model/family.h"

namespace llorch {

struct Phi3 : FamilyModel {
  static constexpr FamilyDefaults kDefaults{
      .context = 4096, .norm_eps = 1e-5, .partial_rotary = true, .longrope = true};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
