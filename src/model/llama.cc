#include "model/llama.h"

#include "model/layer_types.h"

namespace llorch {

void Llama::configure(const JsonReader& config, ModelConfig* out) {
  out->qkv_bias = out->out_bias = config.boolean("attention_bias").value_or(false);
  out->mlp_bias = config.boolean("mlp_bias").value_or(false);
  require_layer_types(config, out->layers, false);
}

}  // namespace llorch
