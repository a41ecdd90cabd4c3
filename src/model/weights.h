// From a checkpoint's tensors to a decoder's weights on the device. The one file that knows what
// tensors are called.
#pragma once

#include <functional>
#include <vector>

#include "formats/checkpoint.h"
#include "model/model_config.h"
#include "ops/backend.h"

namespace llorch {

struct LayerWeights {
  Weight attn_norm;  // {1, D}
  Weight qkv;        // {(H + 2K) E, D}: q's rows, then k's, then v's
  Weight out;        // {D, H E}
  Weight mlp_norm;   // {1, D}
  Weight gate_up;    // {2F, D}: gate's rows, then up's
  Weight down;       // {D, F}
};

struct Weights {
  Weight embed;  // {V, D}
  std::vector<LayerWeights> layers;
  Weight norm;  // {1, D}
  Weight head;  // {V, D}; the same handle as embed if tied
};

// The dtype most of the model is stored in: that of the first layer's down projection. Throws as
// load_weights.
DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config);

// Finds and checks every tensor the model needs, then packs one after the other as `dtype`,
// dropping its pages. `progress` (may be empty) gets 0, then each new percentage of bytes, up to
// 100. Tensors that nobody asks for are ignored. Throws Error{kCorruptFile} or Error{kUnsupported}
// "file: tensor: reason": missing, of another shape, of a dtype we have not got, not finite, or too
// large for f16.
Weights load_weights(const Checkpoint& checkpoint, const ModelConfig& config, Backend& backend,
                     DType dtype, const std::function<void(int percent)>& progress);

}  // namespace llorch
