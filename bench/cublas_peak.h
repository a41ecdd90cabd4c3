// What NVIDIA's library makes of a GPU's matrix units.
#pragma once

#include <vector>

namespace llorch::bench {

// Dense products of two n x n bf16 matrices of random numbers into bf16, summed in f32, on the
// current device: TFLOP/s of each of `repeats` series, by the fastest of the library's algorithms.
// Opens libcublasLt at run time; throws Error{kDevice} naming it where it is not.
std::vector<double> cublas_tflop_s(int n, int repeats);

}  // namespace llorch::bench
