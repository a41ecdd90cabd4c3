#include "model/phi.h"

#include "model/layer_types.h"

namespace llorch {

void Phi::configure(const JsonReader& config, ModelConfig* out) {
  out->norm_kind = NormKind::kLayer;
  out->qkv_bias = out->out_bias = out->head_bias = true;
  out->qk_norm = config.boolean("qk_layernorm").value_or(false);
  require_layer_types(config, out->layers, false);
}

}  // namespace llorch
