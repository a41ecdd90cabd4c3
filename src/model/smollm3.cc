#include "model/smollm3.h"

#include <string>

#include "model/layer_types.h"

namespace llorch {

void SmolLm3::configure(const JsonReader& config, ModelConfig* out) {
  out->qkv_bias = out->out_bias = config.boolean("attention_bias").value_or(false);
  out->mlp_bias = config.boolean("mlp_bias").value_or(false);
  const auto given = config.integers("no_rope_layers", 0, 1);  // 1 where there is rope
  if (given && given->size() < out->rope_of_layer.size()) {
    config.corrupt("no_rope_layers", "lists " + std::to_string(given->size()) + " layers of " +
                                         std::to_string(out->layers));
  }
  const int64_t interval = config.integer("no_rope_layer_interval", 1, INT32_MAX).value_or(4);
  const int window = read_optional_window(config, 0);
  std::vector<bool> slides(static_cast<size_t>(out->layers), false);
  for (size_t i = 0; i < slides.size(); ++i) {
    const bool has_rope = given ? (*given)[i] != 0 : (static_cast<int64_t>(i) + 1) % interval != 0;
    out->rope_of_layer[i] = has_rope ? 0 : -1;
    slides[i] = window != 0 && !has_rope;
  }
  set_windows(config, slides, window, out);
}

}  // namespace llorch
