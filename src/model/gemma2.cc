#include "model/gemma2.h"

#include <cmath>

#include "model/layer_types.h"

namespace llorch {

void configure_gemma(const JsonReader& config, ModelConfig* out) {
  if (config.boolean("use_bidirectional_attention").value_or(false)) {
    config.unsupported("use_bidirectional_attention", "is not supported");
  }
  constexpr double kMaxScalar = 1e6;
  out->norms_store_gain_minus_1 = true;
  out->qkv_bias = out->out_bias = config.boolean("attention_bias").value_or(false);
  out->embed_scale = static_cast<float>(std::sqrt(out->hidden));
  const double scalar = config.number("query_pre_attn_scalar", 1e-6, kMaxScalar).value_or(256);
  out->attention_scale = static_cast<float>(1 / std::sqrt(scalar));
}

float read_softcap(const JsonReader& config, const char* key, float absent) {
  constexpr double kLeast = 1e-6, kMost = 1e9;
  if (!config.contains(key)) {
    return absent;
  }
  return static_cast<float>(config.number(key, kLeast, kMost).value_or(0));
}

void set_alternating_windows(const JsonReader& config, int64_t pattern, ModelConfig* out) {
  const int64_t absent = config.contains("sliding_window") ? 0 : 4096;
  const auto window = config.integer("sliding_window", 1, INT32_MAX).value_or(absent);
  std::vector<bool> slides(static_cast<size_t>(out->layers));
  for (size_t i = 0; i < slides.size(); ++i) {
    slides[i] = (static_cast<int64_t>(i) + 1) % pattern != 0;
  }
  set_windows(config, slides, static_cast<int>(window), out);
}

void Gemma2::configure(const JsonReader& config, ModelConfig* out) {
  configure_gemma(config, out);
  out->attention_softcap = read_softcap(config, "attn_logit_softcapping", 50);
  out->logit_softcap = read_softcap(config, "final_logit_softcapping", 30);
  set_alternating_windows(config, 2, out);
}

}  // namespace llorch
