#include "model/mistral.h"

#include "model/layer_types.h"

namespace llorch {

void Mistral::configure(const JsonReader& config, ModelConfig* out) {
  // An absent key means 4096; only null means that there is no window.
  set_one_window(config, config.contains("sliding_window") ? 0 : 4096, out);
}

}  // namespace llorch
