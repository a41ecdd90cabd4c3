// The wiring that llama, mistral and qwen2 share: pre-norm blocks of attention and a gated MLP.
// Knows no family and no checkpoint.
#pragma once

#include "model/model_config.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace llorch {

// One step, [T] -> [L, V]. Pure; `config` and `weights` must outlive it, `config` also every use
// the device makes of its rope.
Tensor decoder_step(Ops& op, const ModelConfig& config, const Weights& weights);

}  // namespace llorch
