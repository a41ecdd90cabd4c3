// The start-up parity gate: the first layers of a loaded model, computed for a few tokens by the
// device and on the host from the checkpoint.
#pragma once

#include "formats/checkpoint.h"
#include "model/model.h"
#include "model/parity_ops.h"
#include "ops/backend.h"

namespace llorch {

struct ParityOptions {
  int layers = 2;  // as many as there are, at most
  DType kv_type = DType::kF32;
  int32_t block_tokens = 16;  // of the kv cache that create_kv() made, all of whose blocks are free
  int32_t logit_rows = 1;     // of a step, as prepare() saw them
};

// Each op alone, then the step as a whole, which also shows what ops do to each other. Throws
// Error{kDevice} "[parity] layer 1: product with model.layers.1.mlp.down_proj.weight: ..." where
// they differ by more than roundings explain, or are not finite. Between create_kv() and record().
ParityReport check_parity(Backend& backend, const Model& model, const Checkpoint& checkpoint,
                          const ParityOptions& options);

}  // namespace llorch
