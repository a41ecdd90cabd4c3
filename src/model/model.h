// A loaded model: which family it is, its weights on the device, and its step. Knows nothing of
// sequences or text.
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <variant>

#include "formats/checkpoint.h"
#include "model/gemma2.h"
#include "model/gemma3.h"
#include "model/llama.h"
#include "model/mistral.h"
#include "model/mixtral.h"
#include "model/model_config.h"
#include "model/phi.h"
#include "model/phi3.h"
#include "model/qwen2.h"
#include "model/qwen2_moe.h"
#include "model/qwen3.h"
#include "model/qwen3_moe.h"
#include "model/smollm3.h"
#include "ops/backend.h"

namespace llorch {

struct LoadOptions {
  std::optional<DType> dtype = {};                 // none: as stored, quantised blocks included
  std::optional<DType> quantize = {};              // linear weights that are not become this
  std::function<void(int percent)> progress = {};  // may be empty; 0 to 100, each at most once
};

class Model {
 public:
  // Reads config, checks every tensor (name, shape, dtype, finite values) and packs it on
  // `backend`. Throws Error{kCorruptFile} or Error{kUnsupported} naming file, tensor and reason.
  static Model load(const Checkpoint& checkpoint, Backend& backend, const LoadOptions& options);

  const ModelConfig& config() const;
  const Weights& weights() const;
  DType dtype() const { return dtype_; }  // of most of the weights
  // What a KvSpec needs of this model; `type` is the kv cache's.
  KvSpec kv_spec(int block_tokens, DType type) const;
  // A sequence that outgrows this many tokens must be computed anew, as longrope then turns all of
  // them by other angles; 0: never.
  int recompute_above() const;
  // In a sequence longer than this, dynamic NTK turns each row's key by angles that depend on the
  // row's rope_len; 0: there is no such rope.
  int stretched_above() const;
  // Valid as long as this Model lives and is not moved.
  Forward forward() const;
  // The same without the head, and without the layers from `layers` on: [T] -> [T, D].
  template <class Tape>
  TensorOf<Tape> step(Tape& op, int layers) const {
    return std::visit([&](const auto& family) { return family.step(op, layers); }, family_);
  }

 private:
  using AnyFamily = std::variant<Llama, Mistral, Mixtral, Phi, Phi3, Qwen2, Qwen3, Qwen2Moe,
                                 Qwen3Moe, Gemma2, Gemma3, SmolLm3>;
  Model(AnyFamily family, DType dtype) : family_(std::move(family)), dtype_(dtype) {}

  AnyFamily family_;
  DType dtype_;
};

}  // namespace llorch
