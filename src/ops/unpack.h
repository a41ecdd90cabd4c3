// Quantised blocks taken apart: codes, and what they are multiplied with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/backend.h"

namespace llorch {

struct BlockScales {
  float d, dmin;
  uint8_t scales[16], mins[8];
};
void unpack_codes(DType type, const std::byte* block, int index, uint8_t codes[32]);
BlockScales unpack_scales(DType type, const std::byte* block);
bool scales_are_finite(DType type, const std::byte* block);

}  // namespace llorch
