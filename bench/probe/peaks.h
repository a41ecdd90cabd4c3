// What this machine does at most: bytes read from memory a second, and multiply-adds of each of its
// instruction sets. Figures of a kernel say little without them.
#pragma once

#include <cstdint>
#include <vector>

namespace llorch::bench {

enum class Arithmetic { kF32, kBF16, kInt8 };

struct Peak {
  const char* name;  // "bf16 amx"
  Arithmetic arithmetic;
  double per_second;  // operations: a multiplication and an addition are two
};

// By `threads` at once; each the best of several short runs.
std::vector<Peak> measure_peaks(int threads);
// The highest of that arithmetic, or null.
const Peak* best_peak(const std::vector<Peak>& peaks, Arithmetic arithmetic);
// Bytes a second that `threads` read of `bytes`, which should be far more than the caches hold.
double measure_reads(int threads, uint64_t bytes);

}  // namespace llorch::bench
