#include "model/phi3.h"

#include "model/layer_types.h"

namespace llorch {

void Phi3::configure(const JsonReader& config, ModelConfig* out) {
  out->fused_projections = true;
  set_one_window(config, 0, out);
}

}  // namespace llorch
