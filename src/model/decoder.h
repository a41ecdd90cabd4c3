// The wiring that all families but Phi share: pre-norm blocks of attention and a gated MLP or a
// mixture of experts. Knows no family and no checkpoint.
#pragma once

#include "model/model_config.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace llorch {

// One step, [T] -> [L, V]. Pure; `config` and `weights` must outlive it, `config` also every use
// the device makes of its ropes.
Tensor decoder_step(Ops& op, const ModelConfig& config, const Weights& weights);

// The parts, for families with a wiring of their own.
Norm norm_of(const ModelConfig& config, const NormWeights& weights);
// q, k, v and attention of layer `index`, [T, D] -> [T, D].
Tensor self_attention(Ops& op, const Tensor& x, const ModelConfig& config,
                      const LayerWeights& layer, int index);

}  // namespace llorch
