// A loaded model: which family it is, its weights on the device, and its step. Knows nothing of
// sequences or text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "formats/checkpoint.h"
#include "model/llama.h"
#include "model/mistral.h"
#include "model/model_config.h"
#include "model/qwen.h"
#include "ops/backend.h"

namespace llorch {

struct LoadOptions {
  std::optional<DType> dtype;  // none: the checkpoint's
  std::function<void(int percent)> progress;
};

class Model {
 public:
  // Reads config, checks every tensor (name, shape, dtype, finite values) and packs it on `backend`.
  // Throws Error{kCorruptFile} or Error{kUnsupported} naming file, tensor and reason.
  static Model load(const Checkpoint& checkpoint, Backend& backend, const LoadOptions& options);

  const ModelConfig& config() const;
  DType dtype() const { return dtype_; }
  // What a KvSpec needs of this model; `type` is the kv cache's.
  KvSpec kv_spec(int block_tokens, DType type) const;
  // Valid as long as this Model lives and is not moved.
  Forward forward() const;

 private:
  using Family = std::variant<Llama, Mistral, Qwen>;
  Model(Family family, DType dtype) : family_(std::move(family)), dtype_(dtype) {}
  Family family_;
  DType dtype_;
};

}  // namespace llorch
