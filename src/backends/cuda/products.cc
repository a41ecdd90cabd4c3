// The bit gate, and who multiplies. Knows no kernel and no library.
#include "backends/cuda/products.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "backends/cuda/cublas.h"
#include "backends/cuda/product_parts.h"
#include "base/error.h"
#include "ops/dtype.h"

namespace llorch::cuda {
namespace {

LibraryUse library_use() {
  const char* const text = std::getenv("LLORCH_CUDA_CUBLAS");
  const std::string use = text ? text : "gated";
  if (use == "gated") return LibraryUse::kGated;
  if (use == "never") return LibraryUse::kNever;
  if (use == "always") return LibraryUse::kAlways;
  throw Error(ErrorCode::kBadArgument,
              "LLORCH_CUDA_CUBLAS is '" + use + "'; it may be never, gated or always");
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

// One shape's product of made-up rows with real weights, by our kernels; and whether a library's is
// the same.
class Products::Trial {
 public:
  Trial(const Gpu& gpu, const WeightRows& w)
      : gpu_(gpu),
        w_(w),
        // No multiple of any tile; and 256 MiB of results, unless that were too few rows.
        most_(std::clamp((1 << 26) / w.rows, kLeastRows[0] + 1, 333)),
        x_memory_(gpu, uint64_t(most_) * uint64_t(padded_columns(w.cols)) * 2, "a trial's input"),
        own_(gpu, uint64_t(most_) * uint64_t(w.rows) * 4, "a trial's result"),
        other_(gpu, own_.bytes(), "a trial's result"),
        different_(gpu, sizeof(uint32_t), "a trial's count") {
    const Activations x{
        .rounded = x_memory_.as<uint16_t>(), .rounded_type = w.type, .cols = w.cols};
    fill_noise(gpu, x, most_);
    WeightRows plain = w;
    plain.bias = nullptr;
    product(gpu, {.w = plain, .x = x, .m = most_, .out = own_.as<float>(), .out_stride = w.rows});
  }
  ~Trial() {
    try {
      gpu_.synchronize();  // nothing may be freed that is still written
    } catch (const Error&) {
      // The device is lost, and somebody else will say so.
    }
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  bool agrees(LibraryProduct& library, int way) const {
    return differences(library, way, most_) == 0 && differences(library, way, kLeastRows[0]) == 0;
  }

 private:
  // The first m rows; all of them if the library will not.
  uint32_t differences(LibraryProduct& library, int way, int32_t m) const {
    constexpr uint8_t kPoison = 0xaa;  // which no result is
    gpu_.fill(other_.data(), kPoison, other_.bytes());
    gpu_.fill(different_.data(), 0, different_.bytes());
    const LibraryCall call{.type = w_.type,
                           .w = w_.values,
                           .x = x_memory_.data(),
                           .out = other_.as<float>(),
                           .rows = w_.rows,
                           .columns = padded_columns(w_.cols),
                           .m = m};
    if (!library.multiply(gpu_, way, call)) return 1;
    count_differences(gpu_, own_.as<float>(), other_.as<float>(), int64_t{m} * w_.rows,
                      different_.as<uint32_t>());
    uint32_t different = 0;
    gpu_.download(&different, different_.data(), sizeof(different));
    gpu_.synchronize();
    return different;
  }

  const Gpu& gpu_;
  const WeightRows& w_;
  int32_t most_;
  DeviceMemory x_memory_, own_, other_, different_;
};

Products::Products(const Gpu& gpu) : use_(library_use()) {
  if (use_ != LibraryUse::kNever) library_ = open_cublas(gpu);
}

Products::Products(std::unique_ptr<LibraryProduct> library, LibraryUse use)
    : library_(std::move(library)), use_(use) {}

bool Products::admit(const Gpu& gpu, const WeightRows& w) {
  if (!library_ || use_ == LibraryUse::kNever || w.rows <= 0) return false;
  if (w.type != DType::kF16 && w.type != DType::kBF16) return false;
  const Shape shape{w.type, w.rows, padded_columns(w.cols)};
  const auto [found, first] = admitted_.try_emplace(shape);
  Ways& ways = found->second;
  const auto is_used = [&ways] {
    return std::ranges::any_of(ways, [](int way) { return way >= 0; });
  };
  if (!first) return is_used();
  ways.fill(-1);
  try {
    const Trial trial(gpu, w);
    for (size_t i = 0; i < ways.size(); ++i) {
      for (const int way : library_->ways(w.type, shape.rows, shape.columns, kLeastRows[i])) {
        if (use_ != LibraryUse::kAlways && !trial.agrees(*library_, way)) continue;
        ways[i] = way;
        break;
      }
    }
  } catch (const OutOfMemory&) {
    ways.fill(-1);
  }
  return is_used();
}

bool Products::multiply_by_library(const Gpu& gpu, const ProductArgs& args) const {
  if (args.m < kLeastRows[0] || args.rows || args.experts.count > 0) return false;
  const WeightRows& w = args.w;
  // As it was tried out.
  if (args.out_stride != w.rows || !is_aligned(args.out)) return false;
  const auto found = admitted_.find({w.type, w.rows, padded_columns(w.cols)});
  if (found == admitted_.end()) return false;
  size_t i = kLeastRows.size() - 1;
  while (args.m < kLeastRows[i]) --i;
  const int way = found->second[i];
  return way >= 0 && library_->multiply(gpu, way,
                                        {.type = w.type,
                                         .w = w.values,
                                         .x = args.x.rounded,
                                         .out = args.out,
                                         .rows = w.rows,
                                         .columns = padded_columns(w.cols),
                                         .m = args.m});
}

void Products::multiply(const Gpu& gpu, const ProductArgs& args) const {
  if (is_quantised(args.w.type)) {
    quantised_product(gpu, args);
  } else if (multiply_by_library(gpu, args)) {
    finish_product(gpu, args, true);
  } else {
    product(gpu, args);
  }
}

}  // namespace llorch::cuda
