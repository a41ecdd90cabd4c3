// A library that multiplies matrices of 16-bit floats: cuBLASLt (cublas.h), or a test's own.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cuda/gpu.h"
#include "ops/backend.h"

namespace llorch::cuda {

// out[i][n] = x[i] . w[n]; rows follow each other without a gap. Device memory, 16-byte aligned.
struct LibraryCall {
  DType type = DType::kBF16;  // of w and x; or f16
  const void* w = nullptr;    // [rows, columns]
  const void* x = nullptr;    // [m, columns]
  float* out = nullptr;       // [m, rows]
  int32_t rows = 0, columns = 0, m = 0;
};

class LibraryProduct {
 public:
  virtual ~LibraryProduct() = default;
  // Ways to multiply with weights of a shape, the quickest for m rows first. Each is good for any m
  // and for as long as this lives, and sums an output in one go, whatever m is.
  virtual std::vector<int> ways(DType type, int32_t rows, int32_t columns, int32_t m) = 0;
  // Starts it on the stream. false: not so, nothing was started. Throws Error{kDevice}.
  virtual bool multiply(const Gpu& gpu, int way, const LibraryCall& call) = 0;
};

}  // namespace llorch::cuda
