// A model on disk as the layers above see it, whatever its container.
#pragma once

#include <string>

#include "formats/checkpoint.h"

namespace llorch {

// Checkpoint::open; a GGUF model then has the texts and the tensor names that a folder in Hugging
// Face's format has. Throws as Checkpoint::open, and where the metadata is not a model that is
// known here.
Checkpoint open_model(const std::string& path);

}  // namespace llorch
