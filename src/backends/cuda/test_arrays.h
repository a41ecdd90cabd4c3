// Arrays on the device for tests of kernels. A new one holds NaNs, as does what is left untouched.
#pragma once

#include <cstring>
#include <limits>
#include <vector>

#include "backends/cuda/gpu.h"
#include "backends/cuda/kernels.h"

namespace llorch::cuda {

constexpr double kTestEpsilon = std::numeric_limits<float>::epsilon();

template <class T>
class TestArray {
 public:
  TestArray(const Gpu& gpu, size_t count)
      : gpu_(gpu), count_(count), memory_(gpu, count * sizeof(T), "a test") {
    if (count > 0) gpu.fill(memory_.data(), 0xff, count * sizeof(T));
  }
  TestArray(const Gpu& gpu, const std::vector<T>& values) : TestArray(gpu, values.size()) {
    set(values);
  }
  T* data() const { return memory_.as<T>(); }
  void set(const std::vector<T>& values) {
    if (values.empty()) return;
    gpu_.upload(memory_.data(), values.data(), values.size() * sizeof(T));
    gpu_.synchronize();
  }
  std::vector<T> get() const {
    std::vector<T> values(count_);
    gpu_.download(values.data(), memory_.data(), count_ * sizeof(T));
    gpu_.synchronize();
    return values;
  }

 private:
  const Gpu& gpu_;
  size_t count_;
  DeviceMemory memory_;
};

// Rows of activations, both forms, of which one may be missing.
struct TestRows {
  TestRows(const Gpu& gpu, int32_t rows, int32_t cols, bool with_values = true,
           bool with_rounded = true, DType type = DType::kBF16)
      : values(gpu, static_cast<size_t>(rows) * static_cast<size_t>(cols)),
        rounded(gpu, static_cast<size_t>(rows) * static_cast<size_t>(padded_columns(cols))),
        view{.values = with_values ? values.data() : nullptr,
             .rounded = with_rounded ? rounded.data() : nullptr,
             .rounded_type = type,
             .cols = cols,
             .stride = cols} {}
  TestArray<float> values;
  TestArray<uint16_t> rounded;
  Activations view;
};

// For ==, which tells -0 from 0 and a NaN from none.
inline std::vector<uint32_t> bits_of_all(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

}  // namespace llorch::cuda
