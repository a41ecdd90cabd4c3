#include "model/layer_types.h"

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

}  // namespace llorch
