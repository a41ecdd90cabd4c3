// cuBLASLt through pointers to its functions. What its header would say is said here, as the pinned
// toolkit comes without it; where there is one, it is compared.
#include "backends/cuda/cublas.h"

#include <dlfcn.h>

#include <array>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "base/error.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif

namespace llorch::cuda {
namespace {

using Status = int;
constexpr Status kSuccess = 0, kInvalidValue = 7, kNotSupported = 15;
constexpr int kReal32 = 0, kReal16 = 2, kRealBf16 = 14;  // cudaDataType_t
constexpr int kCompute32 = 68;                           // cublasComputeType_t
constexpr int32_t kTransposed = 1;                       // cublasOperation_t
constexpr int kTransA = 3;                               // cublasLtMatmulDescAttributes_t
constexpr int kLayoutCols = 3;                           // cublasLtMatrixLayoutAttribute_t
// cublasLtMatmulPreferenceAttributes_t; of the alignments, A's, and B's, C's and D's after it.
constexpr int kMostWorkspace = 1, kReductions = 3, kAlignmentOfA = 5;
constexpr int kSplits = 2, kReduction = 3;  // cublasLtMatmulAlgoConfigAttributes_t
constexpr uint32_t kNoReduction = 0;        // cublasLtReductionScheme_t

struct Algorithm {
  uint64_t data[8];
};
struct Found {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

#if __has_include(<cublasLt.h>)
static_assert(kSuccess == CUBLAS_STATUS_SUCCESS && kInvalidValue == CUBLAS_STATUS_INVALID_VALUE &&
              kNotSupported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(kReal32 == CUDA_R_32F && kReal16 == CUDA_R_16F && kRealBf16 == CUDA_R_16BF);
static_assert(kCompute32 == CUBLAS_COMPUTE_32F && kTransposed == CUBLAS_OP_T);
static_assert(kTransA == CUBLASLT_MATMUL_DESC_TRANSA && kLayoutCols == CUBLASLT_MATRIX_LAYOUT_COLS);
static_assert(kMostWorkspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
              kReductions == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
              kAlignmentOfA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              kAlignmentOfA + 3 == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kSplits == CUBLASLT_ALGO_CONFIG_SPLITK_NUM &&
              kReduction == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME &&
              kNoReduction == CUBLASLT_REDUCTION_SCHEME_NONE);
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t) &&
              sizeof(Found) == sizeof(cublasLtMatmulHeuristicResult_t) &&
              offsetof(Found, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
#endif

// Its functions; handles, descriptions and layouts are pointers to what only it knows.
struct Functions {
  Status (*create)(void** handle);
  Status (*destroy)(void* handle);
  Status (*create_operation)(void** made, int compute, int scale);
  Status (*destroy_operation)(void*);
  Status (*set_operation)(void*, int attribute, const void*, size_t bytes);
  Status (*create_layout)(void** made, int type, uint64_t rows, uint64_t cols, int64_t pitch);
  Status (*destroy_layout)(void*);
  Status (*set_layout)(void*, int attribute, const void*, size_t bytes);
  Status (*create_preference)(void** made);
  Status (*destroy_preference)(void*);
  Status (*set_preference)(void*, int attribute, const void*, size_t bytes);
  Status (*find)(void* handle, void* operation, void* a, void* b, void* c, void* d,
                 void* preference, int most, Found* found, int* count);
  Status (*get_config)(const Algorithm*, int attribute, void*, size_t bytes, size_t* written);
  Status (*multiply)(void* handle, void* operation, const void* alpha, const void* a,
                     void* a_layout, const void* b, void* b_layout, const void* beta, const void* c,
                     void* c_layout, void* d, void* d_layout, const Algorithm*, void* workspace,
                     size_t workspace_bytes, void* stream);
};

#if __has_include(<cublasLt.h>)
template <class Ours, class Theirs>
constexpr bool kPassedAlike =
    sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>;
template <class... Ours, class... Theirs>
constexpr bool called_alike(Status (*)(Ours...), cublasStatus_t (*)(Theirs...)) {
  if constexpr (sizeof...(Ours) != sizeof...(Theirs))
    return false;
  else
    return (kPassedAlike<Ours, Theirs> && ...);
}
#define SAME(ours, theirs) \
  static_assert(called_alike(decltype(Functions::ours){}, static_cast<decltype(&theirs)>(nullptr)))
SAME(create, cublasLtCreate);
SAME(destroy, cublasLtDestroy);
SAME(create_operation, cublasLtMatmulDescCreate);
SAME(destroy_operation, cublasLtMatmulDescDestroy);
SAME(set_operation, cublasLtMatmulDescSetAttribute);
SAME(create_layout, cublasLtMatrixLayoutCreate);
SAME(destroy_layout, cublasLtMatrixLayoutDestroy);
SAME(set_layout, cublasLtMatrixLayoutSetAttribute);
SAME(create_preference, cublasLtMatmulPreferenceCreate);
SAME(destroy_preference, cublasLtMatmulPreferenceDestroy);
SAME(set_preference, cublasLtMatmulPreferenceSetAttribute);
SAME(find, cublasLtMatmulAlgoGetHeuristic);
SAME(get_config, cublasLtMatmulAlgoConfigGetAttribute);
SAME(multiply, cublasLtMatmul);
#undef SAME
#endif

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kDevice, "[cublas] " + what);
}

void check(Status status, const char* call) {
  if (status != kSuccess) fail(std::string(call) + ": status " + std::to_string(status));
}

void* open_library() {
  std::string reason;
  for (const char* const name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    if (reason.empty()) reason = dlerror();
  }
  fail("libcublasLt.so.13 (or .12) cannot be opened: " + reason);
}

template <class Function>
void find_function(void* library, const char* name, Function* function) {
  void* const found = dlsym(library, name);
  if (found == nullptr) fail("libcublasLt has no " + std::string(name));
  *function = reinterpret_cast<Function>(found);
}

Functions functions_of(void* library) {
  Functions f;
  find_function(library, "cublasLtCreate", &f.create);
  find_function(library, "cublasLtDestroy", &f.destroy);
  find_function(library, "cublasLtMatmulDescCreate", &f.create_operation);
  find_function(library, "cublasLtMatmulDescDestroy", &f.destroy_operation);
  find_function(library, "cublasLtMatmulDescSetAttribute", &f.set_operation);
  find_function(library, "cublasLtMatrixLayoutCreate", &f.create_layout);
  find_function(library, "cublasLtMatrixLayoutDestroy", &f.destroy_layout);
  find_function(library, "cublasLtMatrixLayoutSetAttribute", &f.set_layout);
  find_function(library, "cublasLtMatmulPreferenceCreate", &f.create_preference);
  find_function(library, "cublasLtMatmulPreferenceDestroy", &f.destroy_preference);
  find_function(library, "cublasLtMatmulPreferenceSetAttribute", &f.set_preference);
  find_function(library, "cublasLtMatmulAlgoGetHeuristic", &f.find);
  find_function(library, "cublasLtMatmulAlgoConfigGetAttribute", &f.get_config);
  find_function(library, "cublasLtMatmul", &f.multiply);
  return f;
}

// Something of the library's, with the function that ends it.
class Owned {
 public:
  Owned() = default;
  explicit Owned(Status (*destroy)(void*)) : destroy_(destroy) {}
  ~Owned() {
    if (made_) destroy_(made_);
  }
  Owned(Owned&& other) noexcept
      : destroy_(other.destroy_), made_(std::exchange(other.made_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(destroy_, other.destroy_);
    std::swap(made_, other.made_);
    return *this;
  }
  void** made() { return &made_; }
  void* get() const { return made_; }

 private:
  Status (*destroy_)(void*) = nullptr;
  void* made_ = nullptr;
};

// The library counts columns first, so that rows of ours are its columns: out^T = w x^T.
struct Layouts {
  Owned w, x, out;
};

class CublasLt : public LibraryProduct {
 public:
  CublasLt()
      : f_(functions_of(open_library())), handle_(f_.destroy), operation_(f_.destroy_operation) {
    check(f_.create(handle_.made()), "cublasLtCreate");
    check(f_.create_operation(operation_.made(), kCompute32, kReal32), "cublasLtMatmulDescCreate");
    check(f_.set_operation(operation_.get(), kTransA, &kTransposed, sizeof(kTransposed)),
          "cublasLtMatmulDescSetAttribute");
  }

  std::vector<int> ways(DType type, int32_t rows, int32_t columns, int32_t m) override {
    constexpr int kMost = 8;
    const Layouts layouts = layouts_of(type, rows, columns, m);
    const Owned preference = make_preference();
    std::array<Found, kMost> found{};
    int count = 0;
    const Status status = f_.find(handle_.get(), operation_.get(), layouts.w.get(), layouts.x.get(),
                                  layouts.out.get(), layouts.out.get(), preference.get(), kMost,
                                  found.data(), &count);
    std::vector<int> ways;
    if (status != kSuccess) return ways;  // it has none
    for (int i = 0; i < count; ++i) {
      const Found& each = found[static_cast<size_t>(i)];
      if (each.state != kSuccess || each.workspace_bytes > 0 || !in_one_go(each.algorithm))
        continue;
      ways.push_back(static_cast<int>(ways_.size()));
      ways_.push_back({layouts_of(type, rows, columns, m), each.algorithm});
    }
    return ways;
  }

  bool multiply(const Gpu& gpu, int way, const LibraryCall& call) override {
    const Way& how = ways_.at(static_cast<size_t>(way));
    const auto m = static_cast<uint64_t>(call.m);
    for (const Owned* const layout : {&how.layouts.x, &how.layouts.out}) {
      check(f_.set_layout(layout->get(), kLayoutCols, &m, sizeof(m)),
            "cublasLtMatrixLayoutSetAttribute");
    }
    const float one = 1, zero = 0;
    const Status status =
        f_.multiply(handle_.get(), operation_.get(), &one, call.w, how.layouts.w.get(), call.x,
                    how.layouts.x.get(), &zero, call.out, how.layouts.out.get(), call.out,
                    how.layouts.out.get(), &how.algorithm, nullptr, 0, detail::native_stream(gpu));
    if (status == kNotSupported || status == kInvalidValue) return false;
    check(status, "cublasLtMatmul");
    return true;
  }

 private:
  struct Way {
    Layouts layouts;
    Algorithm algorithm;
  };

  Owned layout(int type, int32_t rows, int32_t cols) const {
    Owned made(f_.destroy_layout);
    check(f_.create_layout(made.made(), type, static_cast<uint64_t>(rows),
                           static_cast<uint64_t>(cols), rows),
          "cublasLtMatrixLayoutCreate");
    return made;
  }
  Layouts layouts_of(DType type, int32_t rows, int32_t columns, int32_t m) const {
    const int stored = type == DType::kF16 ? kReal16 : kRealBf16;
    return {layout(stored, columns, rows), layout(stored, columns, m), layout(kReal32, rows, m)};
  }

  // No workspace and no reduction: an output is summed by one block, whatever m is.
  Owned make_preference() const {
    Owned made(f_.destroy_preference);
    check(f_.create_preference(made.made()), "cublasLtMatmulPreferenceCreate");
    const auto set = [&](int attribute, const auto& value) {
      check(f_.set_preference(made.get(), attribute, &value, sizeof(value)),
            "cublasLtMatmulPreferenceSetAttribute");
    };
    set(kMostWorkspace, uint64_t{0});
    set(kReductions, kNoReduction);
    for (int i = 0; i < 4; ++i) set(kAlignmentOfA + i, uint32_t{16});
    return made;
  }

  bool in_one_go(const Algorithm& algorithm) const {
    int32_t splits = 0;
    uint32_t reduction = ~0u;
    size_t written = 0;
    return f_.get_config(&algorithm, kSplits, &splits, sizeof(splits), &written) == kSuccess &&
           f_.get_config(&algorithm, kReduction, &reduction, sizeof(reduction), &written) ==
               kSuccess &&
           splits <= 1 && reduction == kNoReduction;
  }

  Functions f_;
  Owned handle_, operation_;
  std::vector<Way> ways_;
};

}  // namespace

std::unique_ptr<LibraryProduct> open_cublas(const Gpu&) { return std::make_unique<CublasLt>(); }

}  // namespace llorch::cuda
