// Llama 2 and 3: biases where config.json asks for them, every layer sees the whole context.
#pragma once

#include "model/family.h"

namespace llorch {

struct Llama : FamilyModel {
  static constexpr FamilyDefaults kDefaults{.context = 2048};
  static void configure(const JsonReader& config, ModelConfig* out);
};

}  // namespace llorch
