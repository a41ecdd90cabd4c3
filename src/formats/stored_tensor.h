// A tensor as a model file has it, and its values as a backend takes them. Knows no container.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/quant.h"
#include "ops/backend.h"

namespace llorch {

// Its bytes are checked to lie inside its file and to fit dims and dtype.
struct StoredTensor {
  std::string name;  // as the file names it; so do messages
  std::string file;
  std::string dtype;          // as the file names it: "BF16", "Q4_K"
  std::optional<DType> type;  // of what read() gives; none: this worker cannot read that dtype
  std::vector<int64_t> dims;
  std::span<const std::byte> bytes;

  // What makes the values of a GGUF tensor those of the checkpoint it was made from.
  const GgmlType* blocks = nullptr;  // decode `bytes` to f32 first
  int paired_heads = 0;  // rows (dims[0], whole blocks each) are so many heads of an even number of
                         // rows, which the file has with its halves interleaved
  float shift = 0;       // added to every value; `blocks` is there if it is not 0

  // The values, row by row, as `*type`, which must be there. Lies in `bytes` where they are as
  // stored, else in `*scratch`, which is resized to hold them.
  std::span<const std::byte> read(std::vector<std::byte>* scratch) const;

  // One row of a matrix in f32; `values` has room for it. For who wants few of them.
  void read_row(size_t row, std::span<float> values) const;

  // The quantised type of its blocks, if backends know them as they are stored.
  std::optional<DType> block_type() const;
  // Then, its blocks row by row. Lies in `bytes` or in `*scratch`, as with read().
  std::span<const std::byte> read_blocks(std::vector<std::byte>* scratch) const;
};

}  // namespace llorch
