// A model of random weights that lies in no file: what model_bench times when it is not given one.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "ops/backend.h"
#include "random_shape.h"

namespace llorch::bench {

// Tensors of a type share their bytes, as much as the largest of them takes: a device that packs
// them gets memory of its own for each. No tokenizer.
class RandomCheckpoint {
 public:
  // Matrices are stored as `type`, in blocks if it is quantised, tables then as --quantize has
  // them. Throws Error{kUnsupported} for a type that no file has.
  RandomCheckpoint(const RandomShape& shape, DType type);

  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  StoredTensor tensor(const TensorSpec& spec, DType type) const;

  std::map<DType, std::vector<std::byte>> pools_;  // of matrices
  std::vector<float> ones_;
  Checkpoint checkpoint_;
};

}  // namespace llorch::bench
