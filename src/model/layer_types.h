// config.json's layer_types and sliding_window: which layers see a sliding window only.
#pragma once

#include <optional>
#include <vector>

#include "formats/json_reader.h"
#include "model/model_config.h"

namespace llorch {

// One entry per layer, true where it slides; none if the key is absent or null. Throws
// Error{kCorruptFile} on a wrong count, Error{kUnsupported} on another kind of layer.
std::optional<std::vector<bool>> read_layer_types(const JsonReader& config, int layers);

// For families whose layers are all alike: throws Error{kUnsupported} if the key says otherwise.
void require_layer_types(const JsonReader& config, int layers, bool sliding);

// sliding_window, `absent` where the key is absent; 0 where it is null, or unless
// use_sliding_window is true.
int read_optional_window(const JsonReader& config, int absent);

// sliding_window for all layers; `absent` where it is absent or null, 0 = none.
void set_one_window(const JsonReader& config, int absent, ModelConfig* out);

// `window` for the layers that layer_types names, else for those that `slides` says. Throws
// Error{kCorruptFile} if there is a layer that slides and no window.
void set_windows(const JsonReader& config, const std::vector<bool>& slides, int window,
                 ModelConfig* out);

// set_windows() for the layers from max_window_layers on, if use_sliding_window is true.
void set_upper_windows(const JsonReader& config, ModelConfig* out);

}  // namespace llorch
