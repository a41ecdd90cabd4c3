// From f32 to ggml's quantised blocks. Knows no file.
#pragma once

#include <cstddef>
#include <span>

#include "formats/quant.h"

namespace llorch {

// `values`, whole blocks of a type that backends take (dtype_of()), to `blocks`, which has room for
// them. Q8_0 and Q4_0 are bit for bit the `gguf` Python package's; of the others, whose blocks
// leave a choice, the scales (and minima) that make the squared error small: all errors count
// alike, since nothing is known of what the values will be multiplied with. Finite values give
// finite blocks: what is too large for an f16 scale becomes the largest that there is.
void quantize(const GgmlType& type, std::span<const float> values, std::byte* blocks);

}  // namespace llorch
