// Products for tests: matrices on the host, what a device makes of them, and what ref_ops does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "backends/cuda/kernels.h"
#include "gtest/gtest.h"
#include "ops/dtype.h"
#include "ops/ref_ops.h"
#include "ops/test_numbers.h"

namespace llorch::cuda {

using ref::Matrix;

inline Matrix random_matrix(int32_t rows, int32_t cols, uint32_t seed) {
  Matrix m(rows, cols);
  m.values = TestNumbers(seed).floats(m.values.size());
  return m;
}

inline Matrix rounded(Matrix m, DType type) {
  for (float& v : m.values) v = llorch::rounded(v, type);
  return m;
}

// Device memory with a copy of what the host has.
template <class T>
DeviceMemory uploaded(const Gpu& gpu, const std::vector<T>& values) {
  DeviceMemory memory(gpu, std::max<size_t>(values.size(), 1) * sizeof(T), "test");
  if (!values.empty()) gpu.upload(memory.data(), values.data(), values.size() * sizeof(T));
  gpu.synchronize();
  return memory;
}

// Rows as 16-bit floats, `padded_columns` apart, zeros behind them.
inline std::vector<uint16_t> padded_16(const Matrix& m, DType type) {
  const int32_t pitch = padded_columns(m.cols);
  std::vector<uint16_t> all(static_cast<size_t>(m.rows) * static_cast<size_t>(pitch));
  for (int r = 0; r < m.rows; ++r) {
    for (int c = 0; c < m.cols; ++c) {
      all[static_cast<size_t>(r) * static_cast<size_t>(pitch) + static_cast<size_t>(c)] =
          type == DType::kF16 ? f16_from_f32(m.at(r, c)) : bf16_from_f32(m.at(r, c));
    }
  }
  return all;
}

// A weight on the device; `values` are what its type has made of those given.
class DeviceWeight {
 public:
  DeviceWeight(const Gpu& gpu, const Matrix& given, DType type, std::vector<float> given_bias = {})
      : values(rounded(given, type)), bias(std::move(given_bias)) {
    if (type == DType::kF32) {
      Matrix padded(values.rows, padded_columns(values.cols));
      for (int r = 0; r < values.rows; ++r) {
        for (int c = 0; c < values.cols; ++c) padded.at(r, c) = values.at(r, c);
      }
      memory_ = uploaded(gpu, padded.values);
    } else {
      memory_ = uploaded(gpu, padded_16(values, type));
    }
    bias_memory_ = uploaded(gpu, bias);
    rows = {.values = memory_.data(),
            .bias = bias.empty() ? nullptr : bias_memory_.as<float>(),
            .rows = values.rows,
            .cols = values.cols,
            .type = type};
  }

  Matrix values;
  std::vector<float> bias;
  WeightRows rows;

 private:
  DeviceMemory memory_, bias_memory_;
};

// Activations on the device; their rows lie further apart than they are long, NaNs between them.
class DeviceRows {
 public:
  DeviceRows(const Gpu& gpu, Matrix given) : values(std::move(given)) {
    const int32_t stride = values.cols + 3;
    Matrix apart(values.rows, stride);
    std::ranges::fill(apart.values, std::numeric_limits<float>::quiet_NaN());
    for (int r = 0; r < values.rows; ++r) {
      for (int c = 0; c < values.cols; ++c) apart.at(r, c) = values.at(r, c);
    }
    memory_ = uploaded(gpu, apart.values);
    bf16_memory_ = uploaded(gpu, padded_16(values, DType::kBF16));
    f16_memory_ = uploaded(gpu, padded_16(values, DType::kF16));
  }
  // What a product with weights of that type takes.
  Activations rows(DType weight) const {
    const DeviceMemory& taken = weight == DType::kF16 ? f16_memory_ : bf16_memory_;
    return {.values = weight == DType::kF32 ? memory_.as<float>() : nullptr,
            .rounded = weight == DType::kF32 ? nullptr : taken.as<uint16_t>(),
            .rounded_type = weight == DType::kF16 ? DType::kF16 : DType::kBF16,
            .cols = values.cols,
            .stride = values.cols + 3};
  }
  Matrix taken(DType weight) const { return llorch::cuda::rounded(values, weight); }

  Matrix values;

 private:
  DeviceMemory memory_, bf16_memory_, f16_memory_;
};

// What `run` writes for args whose `out` this sets: rows that lie apart, with what lay between them
// checked to be as it was.
template <class Run>
Matrix result_of(const Gpu& gpu, ProductArgs args, Run run) {
  constexpr float kUntouched = -12345;
  const int32_t stride = args.w.rows + 5;
  std::vector<float> all(static_cast<size_t>(args.m) * static_cast<size_t>(stride), kUntouched);
  const DeviceMemory memory = uploaded(gpu, all);
  args.out = memory.as<float>();
  args.out_stride = stride;
  run(args);
  gpu.download(all.data(), memory.data(), all.size() * 4);
  gpu.synchronize();
  Matrix out(args.m, args.w.rows);
  for (int r = 0; r < args.m; ++r) {
    for (int c = 0; c < stride; ++c) {
      const float v =
          all[static_cast<size_t>(r) * static_cast<size_t>(stride) + static_cast<size_t>(c)];
      if (c < args.w.rows) {
        out.at(r, c) = v;
      } else {
        EXPECT_EQ(v, kUntouched) << "row " << r << " is written beyond its end";
      }
    }
  }
  return out;
}

inline Matrix product_of(const Gpu& gpu, const ProductArgs& args) {
  return result_of(gpu, args, [&](const ProductArgs& a) { product(gpu, a); });
}

inline Matrix chosen_rows(const Matrix& m, const std::vector<int32_t>& rows) {
  Matrix out(static_cast<int>(rows.size()), m.cols);
  for (int r = 0; r < out.rows; ++r) {
    for (int c = 0; c < m.cols; ++c) out.at(r, c) = m.at(rows[static_cast<size_t>(r)], c);
  }
  return out;
}

inline double row_norm(const Matrix& m, int row) {
  double squares = 0;
  for (int c = 0; c < m.cols; ++c) squares += double{m.at(row, c)} * double{m.at(row, c)};
  return std::sqrt(squares);
}

// `got` is x w^T + bias within rounding: the bound is dot_tolerance() of tests/conformance/rig.h,
// and room for the sum with the bias.
inline void expect_product(const Matrix& got, const Matrix& x, const Matrix& w,
                           const std::vector<float>& bias = {}) {
  const Matrix want = ref::linear(x, w, bias);
  ASSERT_EQ(got.rows, want.rows);
  ASSERT_EQ(got.cols, want.cols);
  std::vector<double> x_norms, w_norms;
  for (int r = 0; r < x.rows; ++r) x_norms.push_back(row_norm(x, r));
  for (int r = 0; r < w.rows; ++r) w_norms.push_back(row_norm(w, r));
  const double epsilon = std::numeric_limits<float>::epsilon();
  for (int r = 0; r < want.rows; ++r) {
    for (int c = 0; c < want.cols; ++c) {
      const double norms = x_norms[static_cast<size_t>(r)] * w_norms[static_cast<size_t>(c)];
      const double bound =
          epsilon * ((8 + 2 * std::sqrt(double(x.cols))) * norms + std::abs(double{want.at(r, c)}));
      ASSERT_LE(std::abs(double{got.at(r, c)} - double{want.at(r, c)}), bound)
          << "row " << r << ", column " << c << ": got " << got.at(r, c) << ", want "
          << want.at(r, c);
    }
  }
}

inline void expect_same_bits(const Matrix& a, const Matrix& b) {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.cols, b.cols);
  for (int r = 0; r < a.rows; ++r) {
    for (int c = 0; c < a.cols; ++c) {
      uint32_t first, second;
      std::memcpy(&first, &a.values[static_cast<size_t>(r * a.cols + c)], 4);
      std::memcpy(&second, &b.values[static_cast<size_t>(r * a.cols + c)], 4);
      ASSERT_EQ(first, second) << "row " << r << ", column " << c << ": " << a.at(r, c) << ", "
                               << b.at(r, c);
    }
  }
}

}  // namespace llorch::cuda
