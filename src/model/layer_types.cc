#include "model/layer_types.h"

#include <algorithm>
#include <string>

#include "formats/file_error.h"

namespace llorch {

std::optional<std::vector<bool>> read_layer_types(const JsonReader& config, int layers) {
  const auto types = config.strings("layer_types");
  if (!types) {
    return std::nullopt;
  }
  if (types->size() != static_cast<size_t>(layers)) {
    config.corrupt("layer_types", "lists " + std::to_string(types->size()) + " layers of " +
                                      std::to_string(layers));
  }
  std::vector<bool> slides;
  for (const std::string& type : *types) {
    if (type != "full_attention" && type != "sliding_attention") {
      config.unsupported("layer_types", "'" + printable(type) +
                                            "' is not supported; supported: full_attention, "
                                            "sliding_attention");
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

void require_layer_types(const JsonReader& config, int layers, bool sliding) {
  const auto slides = read_layer_types(config, layers);
  if (slides && *slides != std::vector<bool>(static_cast<size_t>(layers), sliding)) {
    config.unsupported("layer_types",
                       "layers of different kinds are not supported for this architecture");
  }
}

int read_optional_window(const JsonReader& config, int absent) {
  if (!config.boolean("use_sliding_window").value_or(false)) {
    return 0;
  }
  const int otherwise = config.contains("sliding_window") ? 0 : absent;
  return static_cast<int>(config.integer("sliding_window", 1, INT32_MAX).value_or(otherwise));
}

void set_one_window(const JsonReader& config, int absent, ModelConfig* out) {
  const auto window = config.integer("sliding_window", 1, INT32_MAX).value_or(absent);
  std::fill(out->window.begin(), out->window.end(), static_cast<int>(window));
  require_layer_types(config, out->layers, window != 0);
}

void set_windows(const JsonReader& config, const std::vector<bool>& slides, int window,
                 ModelConfig* out) {
  const std::vector<bool> sliding = read_layer_types(config, out->layers).value_or(slides);
  for (size_t i = 0; i < out->window.size(); ++i) {
    if (sliding[i] && window == 0) {
      config.corrupt("layer_types", "has a sliding layer, but there is no sliding window");
    }
    out->window[i] = sliding[i] ? window : 0;
  }
}

void set_upper_windows(const JsonReader& config, ModelConfig* out) {
  const int window = read_optional_window(config, 4096);
  const int64_t first = config.integer("max_window_layers", 0, INT32_MAX).value_or(28);
  std::vector<bool> slides(static_cast<size_t>(out->layers), false);
  for (size_t i = 0; i < slides.size(); ++i) {
    slides[i] = window != 0 && static_cast<int64_t>(i) >= first;
  }
  set_windows(config, slides, window, out);
}

}  // namespace llorch
