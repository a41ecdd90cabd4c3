// Quantised blocks taken apart, for who packs them anew. Knows no layout but ggml's.
//
// A value is d * scale * (code - zero) - dmin * min; types without scales or minima have 1 and 0 in
// their place. Zero is 128 of Q8_0, 8 of Q4_0, 32 of Q6_K, else 0; of IQ4_NL the code is an index
// into its table, of our f8_e4m3 an E4M3.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/backend.h"

namespace llorch {

// The codes of values 32 * index and on of a block, each in a byte of its own.
void unpack_codes(DType type, const std::byte* block, int index, uint8_t codes[32]);

struct BlockScales {
  float d, dmin;
  // Q4_K and Q5_K: of each 32 values; Q6_K: of each 16, and signed.
  uint8_t scales[16], mins[8];
};
BlockScales unpack_scales(DType type, const std::byte* block);

// Whether every value of the block is.
bool is_finite(DType type, const std::byte* block);

}  // namespace llorch
