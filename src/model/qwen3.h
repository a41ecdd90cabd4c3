// Qwen 3: norms on q and k; a sliding window in some layers.
#pragma once

#include "model/family.h"

namespace llorch {

struct Qwen3 : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 32, .head_dim = 128, .context = 32'768};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
