// cuBLASLt, opened when the worker starts: it is never linked, and comes with the driver's user.
#pragma once

#include <memory>

#include "backends/cuda/library_product.h"

namespace llorch::cuda {

// Throws Error{kDevice}, naming the library, if it cannot be opened. Null where the device is
// emulated (emulated/cublas.cc).
std::unique_ptr<LibraryProduct> open_cublas(const Gpu& gpu);

}  // namespace llorch::cuda
