// Qwen 3 with a mixture of experts.
#pragma once

#include "model/family.h"

namespace llorch {

struct Qwen3Moe : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 4, .context = 32'768};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
