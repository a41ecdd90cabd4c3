#include "model/qwen3_moe.h"

#include <algorithm>

#include "model/layer_types.h"
#include "model/moe_config.h"

namespace llorch {

void Qwen3Moe::configure(const JsonReader& config, ModelConfig* out) {
  out->qk_norm = true;
  out->qkv_bias = out->out_bias = config.boolean("attention_bias").value_or(false);
  const int window = read_optional_window(config, 4096);
  std::fill(out->window.begin(), out->window.end(), window);
  require_layer_types(config, out->layers, window != 0);
  out->moe = read_qwen_moe(config, {.experts = 128, .top_k = 8, .ffn = 768}, out->layers);
}

}  // namespace llorch
