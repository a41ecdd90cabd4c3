// Qwen 1.5 and 2 with a mixture of experts, and one expert that every token runs.
#pragma once

#include "model/family.h"

namespace llorch {

struct Qwen2Moe : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.kv_heads = 16, .context = 32'768};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
