// Qwen 2 and 2.5: biases on q, k and v; a sliding window in some layers.
#pragma once

#include "model/family.h"

namespace llorch {

struct Qwen2 : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 32, .context = 32'768};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
