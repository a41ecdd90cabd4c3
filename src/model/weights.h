// From a checkpoint's tensors to a model's weights on the device. The one file that knows what
// tensors are called.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "formats/checkpoint.h"
#include "model/model_config.h"
#include "ops/backend.h"
#include "ops/oracle.h"

namespace llorch {

// What weights are kept as.
struct WeightTypes {
  DType plain = DType::kF32;  // matrices that are not quantised
  bool keep_blocks = true;    // quantised ones stay as stored where backends take that type, else
                              // they become `plain` as well
  std::optional<DType> quantize = {};  // what linear weights become that are not; tables then
                                       // become that too, or q6_k with a type of fewer bits
};

struct NormWeights {
  Weight gain, bias;  // {1, n}; bias is a LayerNorm's
};

struct MoeWeights {
  Weight router;                       // {X, D}
  std::vector<Weight> gate_up, down;   // X of {2F, D} and {D, F}
  Weight shared_gate_up, shared_down;  // of the expert that every row runs, if there is one
  Weight shared_gate;                  // {1, D}
};

// What a family has not got stays empty.
struct LayerWeights {
  NormWeights attn_norm;
  Weight qkv;  // {(H + 2K) E, D}: q's rows, then k's, then v's
  NormWeights q_norm, k_norm;
  Weight out;  // {D, H E}
  NormWeights out_norm, mlp_norm;
  Weight gate_up;  // {2F, D}: gate's rows, then up's; a plain MLP has up's alone, {F, D}
  Weight down;     // {D, F}
  MoeWeights moe;  // in place of gate_up and down
  NormWeights down_norm;
};

struct Weights {
  Weight embed;  // {V, D}
  std::vector<LayerWeights> layers;
  NormWeights norm;
  Weight head;               // {V, D}; the same handle as embed if tied
  DType type = DType::kF32;  // of most of all this
  WeightTypes types;         // as they were asked for
};

// The dtype that most of what is not quantised is stored in, by bytes; f32 if nothing is, or if
// some of the model has to be decoded. Throws as load_weights.
DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config);

// Finds and checks every tensor the model needs, then packs one after the other as `types` say,
// dropping its pages. `progress` (may be empty) gets 0, then each new percentage of bytes, up to
// 100. Tensors that nobody asks for are ignored. Throws Error{kCorruptFile} or Error{kUnsupported}
// "file: tensor: reason": missing, of another shape, of a dtype we have not got, not finite, or too
// large for f16.
Weights load_weights(const Checkpoint& checkpoint, const ModelConfig& config, Backend& backend,
                     const WeightTypes& types, const std::function<void(int percent)>& progress);

// What load_weights() made `weights` from, but for the layers from `layers` on: to be read anew
// from the checkpoint, which must outlive it.
WeightSources weight_sources(const Checkpoint& checkpoint, const ModelConfig& config,
                             const Weights& weights, int layers);

}  // namespace llorch
