// Rotary frequencies from config.json's keys, old and new, as transformers computes them. Knows no
// tensor.
#pragma once

#include "formats/json_reader.h"
#include "ops/backend.h"

namespace llorch {

struct RopeOptions {
  int head_dim = 0;
  int context = 0;        // max_position_embeddings
  double theta = 10'000;  // where config.json has none
  // Phi's families rotate a part of each head, this much where config.json does not say.
  bool may_be_partial = false;
  double part = 1;
  bool longrope = false;  // and no other scaling, as Phi-3 has it
};

// `config` is config.json's top level. Reads rope_parameters, or rope_theta and rope_scaling.
// `context` (not null) becomes what the scaling extends it to. Throws Error{kUnsupported} naming
// the type, or what else is not supported, and Error{kCorruptFile}.
Rope read_rope(const JsonReader& config, const RopeOptions& options, int* context);

// Gemma 3's two: of the layers that see everything, and of those with a window.
struct LayerRopes {
  Rope full, sliding;
};
LayerRopes read_layer_ropes(const JsonReader& config, const RopeOptions& options);

}  // namespace llorch
