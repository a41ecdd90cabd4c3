#include "model/gemma3.h"

#include <utility>

#include "model/gemma2.h"
#include "model/rope.h"

namespace llorch {

void Gemma3::configure(const JsonReader& config, ModelConfig* out) {
  configure_gemma(config, out);
  out->qk_norm = true;
  // Its attention has no soft cap: transformers reads attn_logit_softcapping and uses it nowhere.
  out->logit_softcap = read_softcap(config, "final_logit_softcapping", 0);
  const int64_t pattern = config.integer("sliding_window_pattern", 1, INT32_MAX).value_or(6);
  set_alternating_windows(config, pattern, out);
  LayerRopes ropes = read_layer_ropes(
      config, {.head_dim = out->head_dim, .context = out->context, .theta = kDefaults.rope_theta});
  out->ropes = {std::move(ropes.full), std::move(ropes.sliding)};
  for (size_t i = 0; i < out->rope_of_layer.size(); ++i) {
    out->rope_of_layer[i] = out->window[i] == 0 ? 0 : 1;
  }
}

}  // namespace llorch
