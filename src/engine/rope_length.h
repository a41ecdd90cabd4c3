// The length that a row's rope is told, where its frequencies depend on the length of the sequence.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/sequence.h"

namespace llorch {

struct RopeLengths {
  // Model's of the same names.
  int32_t recompute_above = 0;
  int32_t stretched_above = 0;

  // Batch::rope_len: of longrope all that is known, else the prompt's length, then each decoded
  // row's own.
  int32_t of_row(const Sequence& sequence, int32_t position) const {
    if (recompute_above > 0) return sequence.known();
    return std::max(sequence.prompt_tokens, position + 1);
  }

  // Rows of two sequences, at the same positions from `first` on, turn by the same angles if this
  // is equal.
  int32_t of_block(const Sequence& sequence, int32_t first) const {
    if (recompute_above > 0) return sequence.known() > recompute_above;
    if (stretched_above == 0) return 0;
    return std::max({sequence.prompt_tokens, first + 1, stretched_above});
  }
};

}  // namespace llorch
