#include "model/mistral.h"

#include <algorithm>

#include "model/decoder.h"
#include "model/layer_types.h"

namespace llorch {

void Mistral::configure(const JsonReader& config, ModelConfig* out) {
  out->context = 131072;
  // An absent key means 4096; only null means that there is no window.
  const int64_t absent = config.contains("sliding_window") ? 0 : 4096;
  const auto window = config.integer("sliding_window", 1, INT32_MAX).value_or(absent);
  std::fill(out->window.begin(), out->window.end(), static_cast<int>(window));
  require_layer_types(config, out->layers, window != 0);
}

Tensor Mistral::step(Ops& op) const { return decoder_step(op, config, weights); }

}  // namespace llorch
