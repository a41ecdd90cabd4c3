// A checkpoint's tensors by the names transformers gives them, checked as they are asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/checkpoint.h"

namespace llorch {

// The checkpoint must outlive it.
class Tensors {
 public:
  explicit Tensors(const Checkpoint& checkpoint);

  // Null if there is none. Names start with "model." whether or not the checkpoint's do.
  const StoredTensor* find(const std::string& name) const;
  // Throws Error{kCorruptFile} or Error{kUnsupported} "file: tensor: reason": missing, of another
  // shape, of a dtype we have not got.
  const StoredTensor& require(const std::string& name, const std::vector<int64_t>& dims) const;
  // Part `index` of the `count` that `name` stacks, each of `dims`. Throws as require().
  StoredTensor require_part(const std::string& name, int64_t index, int64_t count,
                            const std::vector<int64_t>& dims) const;

 private:
  const Checkpoint& checkpoint_;
  bool bare_names_;  // saved without a head, as the base model
};

}  // namespace llorch
