// Which kernel multiplies: by the weights' type, and by what was found out about the device at
// start. Knows no tensor.
//
// The bit gate: products of many rows with 16-bit weights are a library's, where it gives the same
// bits as our own. That is tried out for each shape of weights, with the weights themselves; so an
// answer never depends on who multiplied, and one of few rows is the same as one of many.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <tuple>

#include "backends/cuda/gpu.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/library_product.h"

namespace llorch::cuda {

// Whether a library may multiply; kAlways, whatever its bits are, is there to measure what the gate
// costs.
enum class LibraryUse { kNever, kGated, kAlways };

class Products {
 public:
  // With cuBLASLt. The variable LLORCH_CUDA_CUBLAS is never, gated (if not set) or always. Throws
  // Error{kDevice}: there is no cuBLASLt; Error{kBadArgument}: another value.
  explicit Products(const Gpu& gpu);
  Products(std::unique_ptr<LibraryProduct> library, LibraryUse use);

  // Decides, once for all weights of that type and shape, whether the library multiplies many rows
  // with them, and says so. Waits for the device, and takes some hundred megabytes of it until it
  // returns; where it has not got them, nothing is the library's.
  bool admit(const Gpu& gpu, const WeightRows& w);
  // Not admitted weights are multiplied by our own kernels.
  void multiply(const Gpu& gpu, const ProductArgs& args) const;

 private:
  struct Shape {
    DType type;
    int32_t rows, columns;  // padded
    auto operator<=>(const Shape&) const = default;
  };
  // The library's ways for m of so many rows and more, each good for those; -1: our own.
  static constexpr std::array<int32_t, 4> kLeastRows = {256, 512, 1024, 2048};
  using Ways = std::array<int, kLeastRows.size()>;

  class Trial;
  bool multiply_by_library(const Gpu& gpu, const ProductArgs& args) const;

  std::unique_ptr<LibraryProduct> library_;
  LibraryUse use_;
  std::map<Shape, Ways> admitted_;
};

}  // namespace llorch::cuda
