// SmolLM 3: Llama with layers that know no position.
#pragma once

#include "model/family.h"

namespace llorch {

struct SmolLm3 : FamilyModel {
  static constexpr FamilyDefaults kDefaults{
      .kv_heads = 4, .context = 32'768, .tied_head = true, .rope_theta = 2e6};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
