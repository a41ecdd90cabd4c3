// Whether every number of a tensor is one that its model can be computed with. Knows no file.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "ops/backend.h"

namespace llorch {

// Index of the first element that is NaN, infinite, or rounds to infinity when stored as `target`;
// none if all are good. `bytes` holds whole elements of `type`, at any alignment.
std::optional<size_t> find_not_finite(std::span<const std::byte> bytes, DType type, DType target);

}  // namespace llorch
