#include "formats/stored_tensor.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch {

namespace {

// The row of the file that is row `i` of heads of `head` rows: the file has a head's rows in the
// order 0, head/2, 1, head/2 + 1, ...
size_t paired_row(size_t i, size_t head) {
  const size_t within = i % head;
  return i - within + within % (head / 2) * 2 + within / (head / 2);
}

// Calls body(row, its bytes) in the order that the rows have outside the file.
template <class Body>
void for_rows(const StoredTensor& tensor, Body&& body) {
  const size_t rows = tensor.paired_heads > 0 ? static_cast<size_t>(tensor.dims[0]) : 1;
  const size_t head = tensor.paired_heads > 0 ? rows / static_cast<size_t>(tensor.paired_heads) : 1;
  const size_t bytes = tensor.bytes.size() / rows;
  for (size_t i = 0; i < rows; ++i) {
    const size_t from = tensor.paired_heads > 0 ? paired_row(i, head) : i;
    body(i, tensor.bytes.subspan(from * bytes, bytes));
  }
}

void copy_rows(const StoredTensor& tensor, std::vector<std::byte>* target) {
  target->resize(tensor.bytes.size());
  for_rows(tensor, [&](size_t i, std::span<const std::byte> row) {
    std::memcpy(target->data() + i * row.size(), row.data(), row.size());
  });
}

}  // namespace

std::span<const std::byte> StoredTensor::read(std::vector<std::byte>* scratch) const {
  CHECK(type);
  if ((blocks == nullptr && paired_heads == 0) || bytes.empty()) {
    return bytes;
  }
  if (blocks == nullptr) {
    copy_rows(*this, scratch);
    return *scratch;
  }
  size_t count = 1;
  for (const int64_t dim : dims) {
    count *= static_cast<size_t>(dim);
  }
  scratch->resize(count * sizeof(float));
  auto* values = reinterpret_cast<float*>(scratch->data());
  const auto block_bytes = static_cast<size_t>(blocks->block_bytes);
  for_rows(*this, [&](size_t i, std::span<const std::byte> row) {
    dequantize(*blocks, row,
               values + i * (row.size() / block_bytes * static_cast<size_t>(blocks->block_values)));
  });
  if (shift != 0) {
    std::for_each(values, values + count, [this](float& value) { value += shift; });
  }
  return *scratch;
}

void StoredTensor::read_row(size_t row, std::span<float> values) const {
  CHECK(type && dims.size() == 2);
  const auto rows = static_cast<size_t>(dims[0]);
  CHECK(row < rows && values.size() == static_cast<size_t>(dims[1]));
  const size_t row_bytes = bytes.size() / rows;
  const size_t head = paired_heads > 0 ? rows / static_cast<size_t>(paired_heads) : 0;
  const auto stored =
      bytes.subspan((head > 0 ? paired_row(row, head) : row) * row_bytes, row_bytes);
  if (blocks != nullptr) {
    dequantize(*blocks, stored, values.data());
  } else {
    std::ranges::copy(to_f32(stored, *type, values.size()), values.begin());
  }
  if (shift != 0) {
    for (float& value : values) value += shift;
  }
}

std::optional<DType> StoredTensor::block_type() const {
  if (blocks == nullptr || shift != 0) return std::nullopt;
  return dtype_of(*blocks);
}

std::span<const std::byte> StoredTensor::read_blocks(std::vector<std::byte>* scratch) const {
  CHECK(block_type());
  if (paired_heads == 0) return bytes;
  copy_rows(*this, scratch);
  return *scratch;
}

}  // namespace llorch
