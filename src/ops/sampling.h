// From a row of logits to a token, in the order that ops/backend.h gives. Pure: no device, no state
// between calls but scratch memory.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/backend.h"

namespace llorch {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// The draw of (seed, index), uniform in [0, 1) in steps of 2^-53.
double uniform_draw(uint64_t seed, uint32_t index);

// Memory that sample() reuses; one per thread. Grows to the vocabulary once.
struct SamplingScratch {
  void reserve(size_t vocab);

  std::vector<float> row;           // logits after the penalty
  std::vector<float> weights;       // exp((row - max) / temperature), 0 if cut off
  std::vector<uint64_t> seen;       // one bit per token of the history
  std::vector<int32_t> candidates;  // tokens of the bucket that a cut falls into
};

// Turns one row of V >= 1 logits into a token; one that is not finite gives token -1, for it is
// that row's own misfortune. Throws Error{kInternal} on a history token outside the vocabulary.
Sampled sample(std::span<const float> logits, const Sampling& sampling, SamplingScratch& scratch);

}  // namespace llorch
