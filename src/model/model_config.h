// config.json and generation_config.json, checked and made uniform. Knows no tensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ops/backend.h"

namespace llorch {

enum class Family { kLlama, kMistral, kQwen2 };

// Every number is positive and small enough that products of any two fit 63 bits, and that rows of
// stacked weights fit 31.
struct ModelConfig {
  Family family = Family::kLlama;
  std::string architecture;  // model_type: "llama", "mistral", "qwen2"
  int layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  int context = 0;  // max_position_embeddings
  float norm_eps = 0;
  Act act = Act::kSilu;
  bool tied_head = false;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  std::vector<int> window;  // [layers] sliding window in tokens; 0 = none
  Rope rope;
  std::vector<int32_t> eos_ids;  // of both files, ascending, without repeats
};

// `generation_config` may be empty. `file` names config.json in messages. Throws
// Error{kUnsupported} "unsupported architecture 'X'; supported: ..." and Error{kCorruptFile}
// "file: key: reason".
ModelConfig parse_model_config(std::string_view config, std::string_view generation_config,
                               const std::string& file);

}  // namespace llorch
