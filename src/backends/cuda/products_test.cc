#include "backends/cuda/products.h"

#include <cstdlib>
#include <memory>
#include <utility>

#include "backends/cuda/product_test_rig.h"
#include "base/error.h"

namespace llorch::cuda {
namespace {

// What a made-up library does, and what was asked of it.
struct Script {
  std::vector<int> ways = {7};
  std::vector<int> wrong = {};           // ways that get one element wrong, the last that there is
  std::vector<int> wrong_from_300 = {};  // the same, of 300 rows and more
  std::vector<int> refused = {};
  std::vector<std::pair<int, int32_t>> calls = {};  // way, m
  int asked = 0;
};

bool has(const std::vector<int>& all, int one) { return std::ranges::find(all, one) != all.end(); }

// Multiplies by our own kernels.
class MadeUpLibrary : public LibraryProduct {
 public:
  explicit MadeUpLibrary(Script* script) : script_(*script) {}

  std::vector<int> ways(DType, int32_t, int32_t, int32_t) override {
    ++script_.asked;
    return script_.ways;
  }
  bool multiply(const Gpu& gpu, int way, const LibraryCall& call) override {
    if (has(script_.refused, way)) return false;
    script_.calls.emplace_back(way, call.m);
    product(gpu, {.w = {.values = static_cast<const std::byte*>(call.w),
                        .rows = call.rows,
                        .cols = call.columns,
                        .type = call.type},
                  .x = {.rounded = static_cast<uint16_t*>(const_cast<void*>(call.x)),
                        .rounded_type = call.type,
                        .cols = call.columns},
                  .m = call.m,
                  .out = call.out,
                  .out_stride = call.rows});
    if (has(script_.wrong, way) || (call.m >= 300 && has(script_.wrong_from_300, way))) {
      const auto last = static_cast<size_t>(call.m) * static_cast<size_t>(call.rows) - 1;
      gpu.upload(call.out + last, &kWrong, sizeof(kWrong));
    }
    return true;
  }

 private:
  static constexpr float kWrong = 1e-30f;
  Script& script_;
};

struct Case {
  explicit Case(const Gpu& gpu, DType type = DType::kBF16)
      : w(gpu, random_matrix(20, 70, 1), type, TestNumbers(2).floats(20)),
        x(gpu, random_matrix(300, 70, 3)),
        type(type) {}
  // One row after the other, as a library wants it.
  Matrix run(const Gpu& gpu, const Products& products, ProductArgs args) const {
    Matrix out(args.m, w.rows.rows);
    const DeviceMemory memory(gpu, out.values.size() * 4, "test");
    args.w = w.rows;
    args.x = x.rows(type);
    args.out = memory.as<float>();
    args.out_stride = w.rows.rows;
    products.multiply(gpu, args);
    gpu.download(out.values.data(), memory.data(), memory.bytes());
    gpu.synchronize();
    return out;
  }
  DeviceWeight w;
  DeviceRows x;
  DType type;
};

Products gated(Script* script, LibraryUse use = LibraryUse::kGated) {
  return Products(std::make_unique<MadeUpLibrary>(script), use);
}

TEST(CudaProducts, ALibraryThatAgreesMultipliesManyRows) {
  const Gpu gpu(0);
  for (const DType type : {DType::kBF16, DType::kF16}) {
    const Case c(gpu, type);
    Script script;
    Products products = gated(&script);
    EXPECT_TRUE(products.admit(gpu, c.w.rows));
    EXPECT_EQ(script.calls.size(), 8u);  // ways for four numbers of rows, each tried with two
    script.calls.clear();
    const Matrix all = c.run(gpu, products, {.m = 300});
    EXPECT_EQ(script.calls, (std::vector<std::pair<int, int32_t>>{{7, 300}}));
    expect_product(all, c.x.taken(type), c.w.values, c.w.bias);
    // The same bits as our own, with bias and softcap.
    expect_same_bits(all, product_of(gpu, {.w = c.w.rows, .x = c.x.rows(type), .m = 300}));
    expect_same_bits(c.run(gpu, products, {.m = 300, .softcap = 3}),
                     product_of(gpu, {.w = c.w.rows, .x = c.x.rows(type), .m = 300, .softcap = 3}));
  }
}

TEST(CudaProducts, OneElementMoreThanAgreesIsEnough) {
  const Gpu gpu(0);
  const Case c(gpu);
  for (const bool all : {true, false}) {
    Script script;
    (all ? script.wrong : script.wrong_from_300) = {7};
    Products products = gated(&script);
    EXPECT_FALSE(products.admit(gpu, c.w.rows));
    script.calls.clear();
    expect_product(c.run(gpu, products, {.m = 300}), c.x.taken(c.type), c.w.values, c.w.bias);
    EXPECT_TRUE(script.calls.empty());
  }
}

TEST(CudaProducts, TheFirstWayThatAgrees) {
  const Gpu gpu(0);
  const Case c(gpu);
  Script script{.ways = {4, 9, 2, 1}, .wrong = {4}, .refused = {9}};
  Products products = gated(&script);
  products.admit(gpu, c.w.rows);
  script.calls.clear();
  c.run(gpu, products, {.m = 256});
  EXPECT_EQ(script.calls, (std::vector<std::pair<int, int32_t>>{{2, 256}}));
}

// Few rows, gathered rows, rows apart, weights that were not tried: all our own.
TEST(CudaProducts, WhatWasNotTriedIsOurOwn) {
  const Gpu gpu(0);
  const Case c(gpu);
  Script script;
  Products products = gated(&script);
  c.run(gpu, products, {.m = 300});
  EXPECT_TRUE(script.calls.empty());
  products.admit(gpu, c.w.rows);
  script.calls.clear();
  c.run(gpu, products, {.m = 255});
  std::vector<int32_t> rows(300);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = 299 - static_cast<int32_t>(i);
  const DeviceMemory device_rows = uploaded(gpu, rows);
  c.run(gpu, products, {.rows = device_rows.as<int32_t>(), .m = 300});
  result_of(gpu, {.w = c.w.rows, .x = c.x.rows(c.type), .m = 300},
            [&](const ProductArgs& args) { products.multiply(gpu, args); });
  const Case floats(gpu, DType::kF32);
  products.admit(gpu, floats.w.rows);
  floats.run(gpu, products, {.m = 300});
  EXPECT_TRUE(script.calls.empty());
  c.run(gpu, products, {.m = 300});
  EXPECT_EQ(script.calls.size(), 1u);
}

TEST(CudaProducts, AShapeIsTriedOnce) {
  const Gpu gpu(0);
  const Case c(gpu), same(gpu);
  Script script;
  Products products = gated(&script);
  products.admit(gpu, c.w.rows);
  EXPECT_TRUE(products.admit(gpu, same.w.rows));
  EXPECT_EQ(script.asked, 4);
}

TEST(CudaProducts, NeverAndAlways) {
  const Gpu gpu(0);
  const Case c(gpu);
  Script never, always{.wrong = {7}};
  Products none = gated(&never, LibraryUse::kNever), all = gated(&always, LibraryUse::kAlways);
  none.admit(gpu, c.w.rows);
  all.admit(gpu, c.w.rows);
  c.run(gpu, none, {.m = 300});
  c.run(gpu, all, {.m = 300});
  EXPECT_EQ(never.asked, 0);
  EXPECT_EQ(always.calls, (std::vector<std::pair<int, int32_t>>{{7, 300}}));
}

TEST(CudaProducts, TheVariableSaysWhetherThereIsALibrary) {
  const Gpu gpu(0);
  setenv("LLORCH_CUDA_CUBLAS", "never", 1);
  EXPECT_NO_THROW(Products{gpu});
  setenv("LLORCH_CUDA_CUBLAS", "nonsense", 1);
  try {
    Products products(gpu);
    FAIL() << "nonsense is taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadArgument);
    EXPECT_NE(std::string(error.what()).find("LLORCH_CUDA_CUBLAS"), std::string::npos);
  }
  unsetenv("LLORCH_CUDA_CUBLAS");
}

// On a GPU: what the device's library makes of the gate. Its answers are ours in any case.
TEST(CudaProducts, TheDevicesLibrary) {
  const Gpu gpu(0);
  for (const DType type : {DType::kBF16, DType::kF16}) {
    const Case c(gpu, type);
    Products products(gpu);
    products.admit(gpu, c.w.rows);
    expect_same_bits(c.run(gpu, products, {.m = 300}),
                     product_of(gpu, {.w = c.w.rows, .x = c.x.rows(type), .m = 300}));
  }
}

}  // namespace
}  // namespace llorch::cuda
