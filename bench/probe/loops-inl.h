// What the loops share.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace llorch::bench {
namespace {

// So many sums that none waits for its own last addition.
constexpr int kSums = 12;

// Makes the compiler believe that the value may have changed, so that it repeats what it could have
// kept. Costs no instruction.
template <class Vector>
inline void touch(Vector& value) {
  asm volatile("" : "+v"(value));
}

// `step` adds to the sum that it is given. Operations of one step: `operations`.
template <class Vector, class Step>
inline int64_t run_loop(int64_t rounds, int64_t operations, const Step& step) {
  Vector sums[kSums] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (Vector& sum : sums) step(sum);
  }
  for (Vector& sum : sums) touch(sum);
  return rounds * kSums * operations;
}

}  // namespace
}  // namespace llorch::bench
