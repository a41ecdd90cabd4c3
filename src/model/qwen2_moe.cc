#include "model/qwen2_moe.h"

#include "model/layer_types.h"
#include "model/moe_config.h"

namespace llorch {

void Qwen2Moe::configure(const JsonReader& config, ModelConfig* out) {
  out->qkv_bias = config.boolean("qkv_bias").value_or(true);
  // Without layer_types, every other one of the lower layers has the window.
  const int window = read_optional_window(config, 4096);
  const int64_t end = config.integer("max_window_layers", 0, INT32_MAX).value_or(28);
  std::vector<bool> slides(static_cast<size_t>(out->layers), false);
  for (size_t i = 0; i < slides.size(); i += 2) {
    slides[i] = window != 0 && static_cast<int64_t>(i) < end;
  }
  set_windows(config, slides, window, out);
  out->moe = read_qwen_moe(config, {.experts = 60, .top_k = 4, .ffn = 1408}, out->layers);
  out->moe.shared_ffn = read_shared_ffn(config);
}

}  // namespace llorch
