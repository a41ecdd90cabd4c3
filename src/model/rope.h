// Rotary frequencies from config.json's keys, old and new, as transformers computes them. Knows no
// tensor.
#pragma once

#include "formats/json_reader.h"
#include "ops/backend.h"

namespace llorch {

// `config` is config.json's top level; `context` its max_position_embeddings. Reads
// rope_parameters, or rope_theta and rope_scaling. Types: default, linear, llama3, yarn; others
// throw Error{kUnsupported} by name.
Rope read_rope(const JsonReader& config, int head_dim, int context);

}  // namespace llorch
