// The safetensors container: a JSON header that says which bytes are which tensor. Knows no file
// system and no model.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/stored_tensor.h"

namespace llorch {

// Reads the header of `content`, a whole file; the tensors' bytes point into it. Every tensor is
// checked, wanted or not: the data must be covered without gap or overlap, as the format says.
// Throws Error{kCorruptFile} "file: tensor: reason".
std::vector<StoredTensor> parse_safetensors(std::span<const std::byte> content,
                                            const std::string& file);

}  // namespace llorch
