#include "model/qwen3.h"

#include "model/layer_types.h"

namespace llorch {

void Qwen3::configure(const JsonReader& config, ModelConfig* out) {
  out->qk_norm = true;
  out->qkv_bias = out->out_bias = config.boolean("attention_bias").value_or(false);
  set_upper_windows(config, out);
}

}  // namespace llorch
