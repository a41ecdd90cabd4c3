// Which frequencies a row's rotary embedding turns with, where that depends on its sequence's
// length. Knows no position and no tensor.
#pragma once

#include <cstdint>
#include <span>

#include "ops/backend.h"

namespace llorch {

// rope.inv_freq; beyond rope.trained, longrope's other set, or dynamic NTK's own for this length:
// those are written to `scratch`, [dims / 2], as transformers computes them (in f32).
std::span<const float> rope_frequencies(const Rope& rope, int32_t rope_len,
                                        std::span<float> scratch);

}  // namespace llorch
