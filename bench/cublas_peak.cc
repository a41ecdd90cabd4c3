#include "cublas_peak.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "ops/dtype.h"
#include "random_shape.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif

namespace llorch::bench {
namespace {

// cublasLt.h as far as it is needed: toolkits without the library lack it.
constexpr int kTransA = 3, kMaxWorkspaceBytes = 1;  // of a product's attributes, and a preference's
constexpr int kTransposed = 1, kCompute32F = 68, kR32F = 0, kRBf16 = 14;
struct Algo {
  uint64_t data[8];
};
struct Choice {
  Algo algo;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};
#if __has_include(<cublasLt.h>)
static_assert(kTransA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kMaxWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kTransposed == CUBLAS_OP_T && kCompute32F == CUBLAS_COMPUTE_32F);
static_assert(kR32F == CUDA_R_32F && kRBf16 == CUDA_R_16BF);
static_assert(sizeof(Algo) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(Choice) == sizeof(cublasLtMatmulHeuristicResult_t));
#endif

constexpr size_t kWorkspaceBytes = 64 << 20;
constexpr int kChoices = 8, kWarmUps = 3, kProducts = 10;

void check(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  throw Error(ErrorCode::kDevice,
              std::string("[cuda] ") + call + ": " + cudaGetErrorString(result));
}
void check_blas(int status, const char* call) {
  if (status == 0) return;
  throw Error(ErrorCode::kDevice, std::string(call) + ": status " + std::to_string(status));
}

void* open_library() {
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  throw Error(ErrorCode::kDevice, std::string("libcublasLt: ") + dlerror());
}

// The functions of the library, which stays open.
struct Library {
  void* handle = open_library();

  template <class Function>
  Function* find(const char* name) const {
    void* const symbol = dlsym(handle, name);
    if (symbol == nullptr) throw Error(ErrorCode::kDevice, std::string("libcublasLt: no ") + name);
    return reinterpret_cast<Function*>(symbol);
  }

  int (*create)(void**) = find<int(void**)>("cublasLtCreate");
  int (*product_create)(void**, int, int) = find<int(void**, int, int)>("cublasLtMatmulDescCreate");
  int (*product_set)(void*, int, const void*, size_t) =
      find<int(void*, int, const void*, size_t)>("cublasLtMatmulDescSetAttribute");
  int (*layout_create)(void**, int, uint64_t, uint64_t, int64_t) =
      find<int(void**, int, uint64_t, uint64_t, int64_t)>("cublasLtMatrixLayoutCreate");
  int (*preference_create)(void**) = find<int(void**)>("cublasLtMatmulPreferenceCreate");
  int (*preference_set)(void*, int, const void*, size_t) =
      find<int(void*, int, const void*, size_t)>("cublasLtMatmulPreferenceSetAttribute");
  int (*choose)(void*, void*, void*, void*, void*, void*, void*, int, Choice*, int*) =
      find<int(void*, void*, void*, void*, void*, void*, void*, int, Choice*, int*)>(
          "cublasLtMatmulAlgoGetHeuristic");
  int (*multiply)(void*, void*, const void*, const void*, void*, const void*, void*, const void*,
                  const void*, void*, void*, void*, const Algo*, void*, size_t, cudaStream_t) =
      find<int(void*, void*, const void*, const void*, void*, const void*, void*, const void*,
               const void*, void*, void*, void*, const Algo*, void*, size_t, cudaStream_t)>(
          "cublasLtMatmul");
};

class Memory {
 public:
  explicit Memory(size_t bytes) { check(cudaMalloc(&data_, bytes), "allocation"); }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// A product that can be timed: c = a^T b, as a worker's weights lie. What the process holds of the
// library for it ends with the process.
class Product {
 public:
  explicit Product(int n) : n_(static_cast<size_t>(n)), a_(bytes()), b_(bytes()), c_(bytes()) {
    fill(a_, 1);
    fill(b_, 2);
    check_blas(library_.create(&blas_), "cublasLtCreate");
    check_blas(library_.product_create(&product_, kCompute32F, kR32F), "cublasLtMatmulDescCreate");
    check_blas(library_.product_set(product_, kTransA, &kTransposed, sizeof kTransposed),
               "cublasLtMatmulDescSetAttribute");
    check_blas(library_.layout_create(&layout_, kRBf16, n_, n_, n), "cublasLtMatrixLayoutCreate");
    void* preference = nullptr;
    check_blas(library_.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
    check_blas(library_.preference_set(preference, kMaxWorkspaceBytes, &kWorkspaceBytes,
                                       sizeof kWorkspaceBytes),
               "cublasLtMatmulPreferenceSetAttribute");
    check_blas(library_.choose(blas_, product_, layout_, layout_, layout_, layout_, preference,
                               kChoices, choices_.data(), &found_),
               "cublasLtMatmulAlgoGetHeuristic");
    check(cudaEventCreate(&begin_), "event");
    check(cudaEventCreate(&end_), "event");
  }

  int algorithms() const { return found_; }

  // Of so many products one after the other.
  double seconds(int algorithm, int count) {
    check(cudaEventRecord(begin_), "event");
    for (int i = 0; i < count; ++i) multiply(choices_[static_cast<size_t>(algorithm)].algo);
    check(cudaEventRecord(end_), "event");
    check(cudaEventSynchronize(end_), "products");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "time");
    return double{ms} / 1e3;
  }

 private:
  size_t bytes() const { return n_ * n_ * sizeof(uint16_t); }

  void fill(const Memory& memory, uint64_t seed) const {
    std::vector<float> values(n_ * n_);
    random_values(seed, 0, 0, values.size(), values.data());
    std::vector<uint16_t> rounded(values.size());
    std::transform(values.begin(), values.end(), rounded.begin(), bf16_from_f32);
    check(cudaMemcpy(memory.data(), rounded.data(), bytes(), cudaMemcpyHostToDevice), "upload");
  }

  void multiply(const Algo& algo) {
    const float one = 1, zero = 0;
    check_blas(library_.multiply(blas_, product_, &one, a_.data(), layout_, b_.data(), layout_,
                                 &zero, c_.data(), layout_, c_.data(), layout_, &algo,
                                 workspace_.data(), kWorkspaceBytes, nullptr),
               "cublasLtMatmul");
  }

  const Library library_;
  const size_t n_;
  const Memory a_, b_, c_, workspace_{kWorkspaceBytes};
  void *blas_ = nullptr, *product_ = nullptr, *layout_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::array<Choice, kChoices> choices_{};
  int found_ = 0;
};

}  // namespace

std::vector<double> cublas_tflop_s(int n, int repeats) {
  Product product(n);
  int best = 0;
  double least = 0;
  for (int i = 0; i < product.algorithms(); ++i) {
    product.seconds(i, kWarmUps);
    const double seconds = product.seconds(i, kWarmUps);
    if (i == 0 || seconds < least) {
      best = i;
      least = seconds;
    }
  }
  if (product.algorithms() == 0) throw Error(ErrorCode::kDevice, "cuBLASLt has no such product");
  std::vector<double> rates;
  const double operations = 2.0 * n * n * n * kProducts / 1e12;
  for (int i = 0; i < repeats; ++i) rates.push_back(operations / product.seconds(best, kProducts));
  return rates;
}

}  // namespace llorch::bench
