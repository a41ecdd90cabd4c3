// The safetensors container: a JSON header that says which bytes are which tensor. Knows no file
// system and no model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ops/backend.h"

namespace llorch {

// A tensor as stored, its bytes checked to lie inside its file and to fit dims and dtype.
struct StoredTensor {
  std::string name;
  std::string file;
  std::string dtype;          // as the file names it: "BF16"
  std::optional<DType> type;  // none: a dtype this worker does not compute with
  std::vector<int64_t> dims;
  std::span<const std::byte> bytes;
};

// Reads the header of `content`, a whole file; the tensors' bytes point into it. Every tensor is
// checked, wanted or not: the data must be covered without gap or overlap, as the format says.
// Throws Error{kCorruptFile} "file: tensor: reason".
std::vector<StoredTensor> parse_safetensors(std::span<const std::byte> content,
                                            const std::string& file);

}  // namespace llorch
