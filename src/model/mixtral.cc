#include "model/mixtral.h"

#include "model/layer_types.h"
#include "model/moe_config.h"

namespace llorch {

void Mixtral::configure(const JsonReader& config, ModelConfig* out) {
  set_one_window(config, 0, out);
  out->moe = read_moe(config, "num_local_experts", {.experts = 8, .top_k = 2});
  out->moe.layers.assign(static_cast<size_t>(out->layers), true);
  out->moe.ffn = out->ffn;
  out->moe.renormalize = true;
}

}  // namespace llorch
