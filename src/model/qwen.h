// Qwen2: biases on q, k and v; a sliding window in some layers.
#pragma once

#include "formats/json_reader.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace llorch {

struct Qwen {
  ModelConfig config;
  Weights weights;

  // Sets in `out` what this family alone decides; layers and sizes are set already. Throws
  // Error{kCorruptFile} or Error{kUnsupported} naming the key.
  static void configure(const JsonReader& config, ModelConfig* out);
  Tensor step(Ops& op) const;
};

}  // namespace llorch
