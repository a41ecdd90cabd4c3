// config.json and generation_config.json, checked and made uniform. Knows no tensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/kv_layout.h"
#include "ops/backend.h"

namespace llorch {

enum class Family {
  kLlama,
  kMistral,
  kMixtral,
  kPhi,
  kPhi3,
  kQwen2,
  kQwen3,
  kQwen2Moe,
  kQwen3Moe,
  kGemma2,
  kGemma3,
  kSmolLm3,
};

// A mixture of experts in place of the MLP of some layers.
struct MoeConfig {
  std::vector<bool> layers;  // [layers] or empty: which have it
  int experts = 0, top_k = 0;
  int ffn = 0;         // of each expert
  int shared_ffn = 0;  // of an expert that every row runs; 0 = none
  bool renormalize = false;

  bool at(int layer) const { return !layers.empty() && layers[static_cast<size_t>(layer)]; }
};

// What config.json may say at most.
constexpr int kMaxLayers = 4096;
constexpr int kMaxHidden = 1 << 20;
constexpr int kMaxFfn = 1 << 24;
constexpr int kMaxExperts = 1 << 12;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxHeadDim = 1 << 12;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxContext = 1 << 28;

// Every number is positive and small enough that products of any two fit 63 bits, and that rows of
// stacked weights fit 31.
struct ModelConfig {
  Family family = Family::kLlama;
  std::string architecture;  // model_type: "llama", "mistral", "qwen2" ...
  int layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  int context = 0;  // max_position_embeddings, and what rope scaling adds to it
  NormKind norm_kind = NormKind::kRms;
  float norm_eps = 0;
  bool norms_store_gain_minus_1 = false;
  bool qk_norm = false;       // over each head of q and k, before rope
  bool output_norms = false;  // of attention and MLP, before they join the residual sum
  Act act = Act::kSilu;
  bool tied_head = false, head_bias = false;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool fused_projections = false;  // q, k, v are one tensor, and so are gate and up
  float embed_scale = 1, attention_scale = 1;
  float attention_softcap = 0, logit_softcap = 0;  // 0 = off
  MoeConfig moe;
  std::vector<int> window;         // [layers] sliding window in tokens; 0 = none
  KvLayout kv;                     // what `window` makes of the layers
  std::vector<Rope> ropes;         // the different ones
  std::vector<int> rope_of_layer;  // [layers] index into ropes; -1 = none
  std::vector<int32_t> eos_ids;    // of both files, ascending, without repeats
};

// `generation_config` may be empty. `file` names config.json in messages. Throws
// Error{kUnsupported} "unsupported architecture 'X'; supported: ..." and Error{kCorruptFile}
// "file: key: reason".
ModelConfig parse_model_config(std::string_view config, std::string_view generation_config,
                               const std::string& file);

}  // namespace llorch
