// config.json's layer_types: which layers see a sliding window only.
#pragma once

#include <optional>
#include <vector>

#include "formats/json_reader.h"

namespace llorch {

// One entry per layer, true where it slides; none if the key is absent or null. Throws
// Error{kCorruptFile} on a wrong count, Error{kUnsupported} on another kind of layer.
std::optional<std::vector<bool>> read_layer_types(const JsonReader& config, int layers);

// For families whose layers are all alike: throws Error{kUnsupported} if the key says otherwise.
void require_layer_types(const JsonReader& config, int layers, bool sliding);

}  // namespace llorch
