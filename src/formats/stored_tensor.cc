#include "formats/stored_tensor.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace llorch {

namespace {

// The row of the file that is row `i` of heads of `head` rows: the file has a head's rows in the
// order 0, head/2, 1, head/2 + 1, ...
size_t paired_row(size_t i, size_t head) {
  const size_t within = i % head;
  return i - within + within % (head / 2) * 2 + within / (head / 2);
}

}  // namespace

std::span<const std::byte> StoredTensor::read(std::vector<std::byte>* scratch) const {
  CHECK(type);
  if ((blocks == nullptr && paired_heads == 0) || bytes.empty()) {
    return bytes;
  }
  size_t count = 1;
  for (const int64_t dim : dims) {
    count *= static_cast<size_t>(dim);
  }
  scratch->resize(count * size_bytes(*type));
  const size_t rows = paired_heads > 0 ? static_cast<size_t>(dims[0]) : 1;
  const size_t head = paired_heads > 0 ? rows / static_cast<size_t>(paired_heads) : 1;
  const size_t stored_row = bytes.size() / rows, row = scratch->size() / rows;
  for (size_t i = 0; i < rows; ++i) {
    const size_t from = paired_heads > 0 ? paired_row(i, head) : i;
    const auto source = bytes.subspan(from * stored_row, stored_row);
    std::byte* target = scratch->data() + i * row;
    if (blocks == nullptr) {
      std::memcpy(target, source.data(), row);
    } else {
      dequantize(*blocks, source, reinterpret_cast<float*>(target));
    }
  }
  if (shift != 0) {
    auto* values = reinterpret_cast<float*>(scratch->data());
    std::for_each(values, values + count, [this](float& value) { value += shift; });
  }
  return *scratch;
}

}  // namespace llorch
