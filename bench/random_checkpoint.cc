#include "random_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/config.h"
#include "base/error.h"
#include "formats/quant.h"
#include "formats/quantize.h"
#include "ops/dtype.h"

namespace llorch::bench {
namespace {

namespace fs = std::filesystem;

// Numbers that a pool repeats; whole blocks of every type, and no power of two, or the rows of a
// matrix would soon be each other's.
constexpr size_t kNumbers = 256 * 16381;

// A Checkpoint is of files, so it begins as the smallest that there is.
Checkpoint empty_checkpoint() {
  const fs::path folder = fs::temp_directory_path() / ("llorch-bench-" + new_uuid());
  fs::create_directory(folder);
  std::ofstream(folder / "config.json") << "{}";
  std::ofstream(folder / "tokenizer.json") << "{}";
  const uint64_t header_bytes = 8;  // little-endian machines alone are benchmarked
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes)
      .write("{}      ", 8);
  Checkpoint checkpoint = Checkpoint::open(folder.string());
  fs::remove_all(folder);
  return checkpoint;
}

void put(float value, DType type, std::byte* to) {
  if (type == DType::kF32) {
    std::memcpy(to, &value, sizeof value);
    return;
  }
  const uint16_t bits = type == DType::kBF16 ? bf16_from_f32(value) : f16_from_f32(value);
  std::memcpy(to, &bits, sizeof bits);
}

// So many bytes of numbers stored as `type`.
std::vector<std::byte> random_pool(DType type, size_t bytes) {
  std::vector<float> values(kNumbers);
  random_values(1, static_cast<uint64_t>(type), 0, kNumbers, values.data());
  std::vector<std::byte> once(row_bytes(type, kNumbers));
  if (is_quantised(type)) {
    quantize(ggml_type_of(type), values, once.data());
  } else {
    for (size_t i = 0; i < kNumbers; ++i) put(values[i], type, once.data() + i * size_bytes(type));
  }
  std::vector<std::byte> pool(bytes);
  for (size_t at = 0; at < bytes; at += once.size()) {
    std::copy_n(once.begin(), std::min(once.size(), bytes - at),
                pool.begin() + static_cast<ptrdiff_t>(at));
  }
  return pool;
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(const RandomShape& shape, DType type)
    : ones_(static_cast<size_t>(shape.hidden), 1.0F), checkpoint_(empty_checkpoint()) {
  const std::vector<TensorSpec> specs = tensors_of(shape, Naming::kTransformers);
  const DType table = !is_quantised(type) || type == DType::kQ8_0 ? type : DType::kQ6_K;
  std::map<DType, uint64_t> largest;
  for (const TensorSpec& spec : specs) {
    if (spec.norm()) continue;
    const DType stored = spec.table ? table : type;
    const uint64_t bytes = row_bytes(stored, static_cast<int64_t>(spec.count()));
    largest[stored] = std::max(largest[stored], bytes);
  }
  for (const auto& [stored, bytes] : largest) pools_[stored] = random_pool(stored, bytes);
  Checkpoint::Description description;
  description.config = config_text(shape, "bfloat16");
  for (const TensorSpec& spec : specs) {
    description.tensors.emplace(spec.name, tensor(spec, spec.table ? table : type));
  }
  checkpoint_.describe(std::move(description));
}

StoredTensor RandomCheckpoint::tensor(const TensorSpec& spec, DType type) const {
  if (spec.norm()) type = DType::kF32;
  StoredTensor tensor;
  tensor.name = spec.name;
  tensor.file = "random";
  tensor.dtype = name(type);
  tensor.type = type;
  for (const uint64_t dim : spec.dims) tensor.dims.push_back(static_cast<int64_t>(dim));
  if (spec.norm()) {
    tensor.bytes = std::as_bytes(std::span(ones_));
    return tensor;
  }
  tensor.bytes =
      std::span(pools_.at(type)).first(row_bytes(type, static_cast<int64_t>(spec.count())));
  if (is_quantised(type)) {
    tensor.type = DType::kF32;  // what its blocks are decoded to
    tensor.blocks = &ggml_type_of(type);
  }
  return tensor;
}

}  // namespace llorch::bench
