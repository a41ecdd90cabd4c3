// An emulated device has no library.
#include "backends/cuda/cublas.h"

namespace llorch::cuda {

std::unique_ptr<LibraryProduct> open_cublas(const Gpu&) { return nullptr; }

}  // namespace llorch::cuda
