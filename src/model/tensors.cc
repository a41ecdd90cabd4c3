#include "model/tensors.h"

#include "formats/file_error.h"
#include "model/gguf_names.h"

namespace llorch {
namespace {

constexpr char kPrefix[] = "model.";
constexpr size_t kPrefixLength = sizeof kPrefix - 1;

std::string shape_text(const std::vector<int64_t>& dims) {
  std::string text;
  for (const int64_t dim : dims) {
    text += (text.empty() ? "" : ", ") + std::to_string(dim);
  }
  return "[" + text + "]";
}

}  // namespace

Tensors::Tensors(const Checkpoint& checkpoint)
    : checkpoint_(checkpoint),
      bare_names_(checkpoint.find("model.embed_tokens.weight") == nullptr &&
                  checkpoint.find("embed_tokens.weight") != nullptr) {}

const StoredTensor* Tensors::find(const std::string& name) const {
  const bool shorten = bare_names_ && name.compare(0, kPrefixLength, kPrefix) == 0;
  return checkpoint_.find(shorten ? name.substr(kPrefixLength) : name);
}

const StoredTensor& Tensors::require(const std::string& name,
                                     const std::vector<int64_t>& dims) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr) {
    const Gguf* gguf = checkpoint_.gguf();
    throw_corrupt(checkpoint_.path(), gguf ? gguf_tensor_name(*gguf, name) : name, "is missing");
  }
  if (!tensor->type) {
    const std::string readable = checkpoint_.gguf() ? readable_ggml_types() : "F32, F16, BF16";
    throw_unsupported(
        tensor->file, tensor->name,
        "dtype " + printable(tensor->dtype) + " is not supported; supported: " + readable);
  }
  if (tensor->dims != dims) {
    throw_corrupt(tensor->file, tensor->name,
                  "wrong shape; got " + shape_text(tensor->dims) + ", want " + shape_text(dims));
  }
  return *tensor;
}

StoredTensor Tensors::require_part(const std::string& name, int64_t index, int64_t count,
                                   const std::vector<int64_t>& dims) const {
  std::vector<int64_t> stacked = {count};
  stacked.insert(stacked.end(), dims.begin(), dims.end());
  StoredTensor part = require(name, stacked);
  const size_t bytes = part.bytes.size() / static_cast<size_t>(count);
  part.bytes = part.bytes.subspan(static_cast<size_t>(index) * bytes, bytes);
  part.dims = dims;
  return part;
}

}  // namespace llorch
