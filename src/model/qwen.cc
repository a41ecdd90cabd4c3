#include "model/qwen.h"

#include "model/decoder.h"
#include "model/layer_types.h"

namespace llorch {

void Qwen::configure(const JsonReader& config, ModelConfig* out) {
  out->context = 32768;
  out->qkv_bias = true;
  int window = 0;
  if (config.boolean("use_sliding_window").value_or(false)) {
    const int64_t absent = config.contains("sliding_window") ? 0 : 4096;
    window = static_cast<int>(config.integer("sliding_window", 1, INT32_MAX).value_or(absent));
  }
  const int64_t first = config.integer("max_window_layers", 0, INT32_MAX).value_or(28);
  const auto slides = read_layer_types(config, out->layers);
  for (size_t i = 0; i < out->window.size(); ++i) {
    const bool sliding = slides ? (*slides)[i] : window != 0 && static_cast<int64_t>(i) >= first;
    if (sliding && window == 0) {
      config.corrupt("layer_types", "has a sliding layer, but there is no sliding window");
    }
    out->window[i] = sliding ? window : 0;
  }
}

Tensor Qwen::step(Ops& op) const { return decoder_step(op, config, weights); }

}  // namespace llorch
