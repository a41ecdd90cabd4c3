#include "model/qwen2.h"

#include "model/layer_types.h"

namespace llorch {

void Qwen2::configure(const JsonReader& config, ModelConfig* out) {
  out->qkv_bias = true;
  set_upper_windows(config, out);
}

}  // namespace llorch
