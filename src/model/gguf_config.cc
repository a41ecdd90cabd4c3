#include "model/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/file_error.h"
#include "model/gguf_names.h"
#include "model/model_config.h"

namespace llorch {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMax = INT32_MAX;
constexpr double kMaxNumber = 1e15;

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Keys that change what is computed, in ways that no family here has; 0 and 1 leave all as it is.
constexpr const char* kForeign[] = {
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.output_scale",
    "attention.scale",
    "attention.shared_kv_layers",
    "attention.temperature_scale",
    "embedding_scale",
    "expert_group_count",
    "expert_weights_scale",
    "leading_dense_block_count",
    "logit_scale",
    "nextn_predict_layers",
    "residual_scale",
    "router_logit_softcapping",
};

class ConfigWriter {
 public:
  explicit ConfigWriter(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), gguf_(*checkpoint.gguf()), facts_(gguf_architecture(gguf_)) {}

  std::string write() {
    refuse_foreign();
    sizes();
    const std::string model_type = this->model_type();
    out_["model_type"] = model_type;
    biases();
    if (model_type == "phi") {
      out_["layer_norm_eps"] = required_number("attention.layer_norm_epsilon");
      out_["qk_layernorm"] = has("blk.0.attn_q_norm.weight");
    } else {
      out_["rms_norm_eps"] = required_number("attention.layer_norm_rms_epsilon");
    }
    rope(model_type);
    windows(model_type);
    gemma(model_type);
    experts(model_type);
    return text_of(out_);
  }

 private:
  std::string key(const std::string& name) const { return std::string(facts_.name) + "." + name; }
  bool has(const std::string& tensor) const { return checkpoint_.find(tensor) != nullptr; }
  std::optional<int64_t> integer(const std::string& name) const {
    return gguf_.integer(key(name), 0, kMax);
  }
  std::optional<double> number(const std::string& name) const {
    return gguf_.number(key(name), 0, kMaxNumber);
  }
  int64_t required(const std::string& name, int64_t most = kMax) const {
    const auto value = gguf_.integer(key(name), 1, most);
    if (!value) {
      gguf_.corrupt(key(name), "is missing");
    }
    return *value;
  }
  double required_number(const std::string& name) const {
    const auto value = number(name);
    if (!value) {
      gguf_.corrupt(key(name), "is missing");
    }
    return *value;
  }

  void refuse_foreign() const {
    for (const char* name : kForeign) {
      const auto value = gguf_.number(key(name), -kMaxNumber, kMaxNumber);
      if (value && *value != 0 && *value != 1) {
        gguf_.unsupported(key(name), "is not supported");
      }
    }
    if (!gguf_.boolean(key("attention.causal")).value_or(true)) {
      gguf_.unsupported(key("attention.causal"), "attention that is not causal is not supported");
    }
    if (gguf_.is_array(key("rope.dimension_sections"))) {
      gguf_.unsupported(key("rope.dimension_sections"), "is not supported");
    }
    constexpr int64_t kSoftmax = 1;
    const auto gating = integer("expert_gating_func");
    if (gating && *gating != 0 && *gating != kSoftmax) {
      gguf_.unsupported(key("expert_gating_func"),
                        std::to_string(*gating) + " is not supported; supported: 1 (softmax)");
    }
    const auto type = gguf_.string("general.type");
    if (type && *type != "model") {
      gguf_.unsupported("general.type",
                        "'" + printable(*type) + "' is not supported; supported: model");
    }
  }

  // Mixtral's files call themselves llama, and a window is Mistral's.
  std::string model_type() const {
    const std::string named = facts_.model_type;
    if (named != "llama") {
      return named;
    }
    if (integer("expert_count").value_or(0) > 0) {
      return "mixtral";
    }
    const bool window = integer("attention.sliding_window").value_or(0) > 0;
    return window || facts_.name == std::string_view("mistral") ? "mistral" : "llama";
  }

  void sizes() {
    layers_ = required("block_count", kMaxLayers);
    hidden_ = required("embedding_length", kMaxHidden);
    heads_ = required("attention.head_count", kMaxHeads);
    const auto kv_heads = gguf_.integer(key("attention.head_count_kv"), 1, heads_);
    if (heads_ % kv_heads.value_or(heads_) != 0) {
      gguf_.corrupt(
          key("attention.head_count_kv"),
          std::to_string(*kv_heads) + " does not divide the " + std::to_string(heads_) + " heads");
    }
    out_["num_hidden_layers"] = layers_;
    out_["hidden_size"] = hidden_;
    out_["intermediate_size"] = required("feed_forward_length", kMaxFfn);
    out_["num_attention_heads"] = heads_;
    out_["num_key_value_heads"] = kv_heads.value_or(heads_);
    out_["max_position_embeddings"] = required("context_length", kMaxContext);
    const auto key_length = gguf_.integer(key("attention.key_length"), 1, kMaxHeadDim);
    if (!key_length && hidden_ % heads_ != 0) {
      gguf_.corrupt(key("attention.head_count"), std::to_string(heads_) + " does not divide the " +
                                                     "embedding_length " + std::to_string(hidden_));
    }
    head_dim_ = key_length.value_or(hidden_ / heads_);
    if (integer("attention.value_length").value_or(head_dim_) != head_dim_) {
      gguf_.unsupported(key("attention.value_length"), "must be as attention.key_length");
    }
    out_["head_dim"] = head_dim_;
    const StoredTensor* embed = checkpoint_.find("token_embd.weight");
    if (embed == nullptr || embed->dims.size() != 2) {
      throw_corrupt(checkpoint_.path(), "token_embd.weight",
                    embed == nullptr ? "is missing" : "must be a matrix");
    }
    out_["vocab_size"] = embed->dims[0];
    out_["tie_word_embeddings"] = !has("output.weight");
  }

  // No key says which there are. Phi and Qwen 2 always have theirs.
  void biases() {
    const bool attention = has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias");
    out_["attention_bias"] = attention;
    out_["qkv_bias"] = attention;
    out_["mlp_bias"] = has("blk.0.ffn_up.bias");
  }

  void rope(const std::string& model_type) {
    const double theta = gguf_.number(key("rope.freq_base"), 1, kMaxNumber).value_or(10'000);
    out_["rope_theta"] = theta;
    const int64_t dims = gguf_.integer(key("rope.dimension_count"), 1, kMax).value_or(head_dim_);
    if (dims != head_dim_ && model_type != "phi" && model_type != "phi3") {
      gguf_.unsupported(key("rope.dimension_count"),
                        std::to_string(dims) + " of a head's " + std::to_string(head_dim_) +
                            " dimensions is not supported for this architecture");
    }
    // Rounded so that the product with the head's size is not below the number it stands for.
    double part = static_cast<double>(dims) / static_cast<double>(head_dim_);
    if (static_cast<int64_t>(part * static_cast<double>(head_dim_)) < dims) {
      part = std::nextafter(part, 2.0);
    }
    out_["partial_rotary_factor"] = part;
    Json scaling = rope_scaling(model_type);
    if (!scaling.empty()) {
      out_["rope_scaling"] = std::move(scaling);
    }
  }

  Json rope_scaling(const std::string& model_type) {
    const auto named = gguf_.string(key("rope.scaling.type"));
    std::string type(named.value_or(""));
    const auto old_linear = number("rope.scale_linear");
    if (type.empty() && old_linear && *old_linear != 0 && *old_linear != 1) {
      return {{"rope_type", "linear"}, {"factor", *old_linear}};
    }
    if (model_type == "phi3") {
      return longrope();
    }
    if (const StoredTensor* factors = checkpoint_.find("rope_freqs.weight")) {
      if (!type.empty() && type != "none") {
        gguf_.unsupported(key("rope.scaling.type"), "is not supported beside rope_freqs.weight");
      }
      return {{"rope_type", "factors"}, {"factors", values(*factors)}};
    }
    if (type.empty() || type == "none") {
      return Json::object();
    }
    if (type == "linear") {
      return {{"rope_type", "linear"}, {"factor", required_number("rope.scaling.factor")}};
    }
    if (type != "yarn") {
      gguf_.unsupported(key("rope.scaling.type"), "'" + printable(type) +
                                                      "' is not supported for this architecture; "
                                                      "supported: none, linear, yarn");
    }
    return yarn();
  }

  Json yarn() {
    Json scaling = {
        {"rope_type", "yarn"},
        {"factor", required_number("rope.scaling.factor")},
        {"original_max_position_embeddings", required("rope.scaling.original_context_length")}};
    const struct {
      const char *name, *hugging_face;
    } optional[] = {{"rope.scaling.yarn_beta_fast", "beta_fast"},
                    {"rope.scaling.yarn_beta_slow", "beta_slow"},
                    {"rope.scaling.yarn_attn_factor", "attention_factor"},
                    {"rope.scaling.yarn_log_multiplier", "mscale_all_dim"}};
    for (const auto& [name, hugging_face] : optional) {
      if (const auto value = number(name)) {
        scaling[hugging_face] = *value;
      }
    }
    if (scaling.contains("mscale_all_dim")) {
      scaling["mscale"] = 1;
    }
    for (const char* name : {"rope.scaling.yarn_ext_factor", "rope.scaling.attn_factor"}) {
      if (number(name).value_or(1) != 1) {
        gguf_.unsupported(key(name), "is not supported");
      }
    }
    return scaling;
  }

  Json longrope() {
    const char* key_of_trained = "rope.scaling.original_context_length";
    const StoredTensor* long_factors = checkpoint_.find("rope_factors_long.weight");
    const StoredTensor* short_factors = checkpoint_.find("rope_factors_short.weight");
    if (long_factors == nullptr && short_factors == nullptr) {
      return Json::object();
    }
    if (long_factors == nullptr || short_factors == nullptr) {
      throw_corrupt(
          checkpoint_.path(),
          long_factors == nullptr ? "rope_factors_long.weight" : "rope_factors_short.weight",
          "is missing");
    }
    out_["original_max_position_embeddings"] = required(key_of_trained);
    Json scaling = {{"rope_type", "longrope"},
                    {"long_factor", values(*long_factors)},
                    {"short_factor", values(*short_factors)}};
    if (const auto factor = number("rope.scaling.attn_factor")) {
      scaling["attention_factor"] = *factor;
    }
    return scaling;
  }

  // A vector of f32.
  static std::vector<double> values(const StoredTensor& tensor) {
    if (tensor.dtype != "F32" || tensor.dims.size() != 1) {
      throw_corrupt(tensor.file, tensor.name, "must be a vector of F32");
    }
    std::vector<float> floats(static_cast<size_t>(tensor.dims[0]));
    dequantize(*find_ggml_type(0), tensor.bytes, floats.data());
    std::vector<double> out;
    for (const float value : floats) {
      if (!(value >= 1e-6F && value <= 1e6F)) {
        throw_corrupt(tensor.file, tensor.name, "holds a factor that is not from 1e-6 to 1e6");
      }
      out.push_back(value);
    }
    return out;
  }

  void windows(const std::string& model_type) {
    const auto window = integer("attention.sliding_window");
    const bool alternating = model_type == "gemma2" || model_type == "gemma3_text";
    const bool has_window = window.value_or(model_type == "gemma2" ? 4096 : 0) > 0;
    if (window && *window > 0) {
      out_["sliding_window"] = *window;
    } else if (!has_window) {
      out_["sliding_window"] = nullptr;
    }
    const bool can_slide =
        alternating || model_type == "mistral" || model_type == "mixtral" || model_type == "phi3";
    if (has_window && !can_slide) {
      gguf_.unsupported(key("attention.sliding_window"), "is not supported for this architecture");
    }
    if (alternating && !has_window) {
      out_["layer_types"] =
          std::vector<std::string>(static_cast<size_t>(layers_), "full_attention");
    } else if (has_window) {
      pattern();
    }
  }

  // Which layers slide, where the file says so: one flag for each, or in how many one does not.
  void pattern() {
    const std::string name = key("attention.sliding_window_pattern");
    if (!gguf_.contains(name)) {
      return;
    }
    std::vector<std::string> types;
    const auto add = [&](bool slides) {
      types.emplace_back(slides ? "sliding_attention" : "full_attention");
    };
    if (gguf_.is_array(name)) {
      const auto flags = gguf_.integers(name, 0, 1);
      if (flags->size() != static_cast<size_t>(layers_)) {
        gguf_.corrupt(name, "has " + std::to_string(flags->size()) + " flags for " +
                                std::to_string(layers_) + " layers");
      }
      for (const int64_t flag : *flags) {
        add(flag != 0);
      }
    } else {
      const int64_t period = *gguf_.integer(name, 1, kMax);
      for (int64_t i = 0; i < layers_; ++i) {
        add((i + 1) % period != 0);
      }
    }
    out_["layer_types"] = types;
  }

  void gemma(const std::string& model_type) {
    if (model_type != "gemma2" && model_type != "gemma3_text") {
      for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping"}) {
        if (number(name).value_or(0) != 0) {
          gguf_.unsupported(key(name), "is not supported for this architecture");
        }
      }
      return;
    }
    // No key has the scale of the queries; only the largest model's is not that of its heads.
    const int64_t largest = model_type == "gemma2" ? 46 : 62;
    out_["query_pre_attn_scalar"] = layers_ == largest ? hidden_ / heads_ : head_dim_;
    for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping"}) {
      if (const auto cap = number(name)) {
        out_[name] = *cap == 0 ? Json() : Json(*cap);
      }
    }
    if (const auto base = gguf_.number(key("rope.freq_base_swa"), 1, kMaxNumber)) {
      out_["rope_local_base_freq"] = *base;
    }
  }

  void experts(const std::string& model_type) {
    if (model_type == "mixtral") {
      out_["num_local_experts"] = required("expert_count");
      out_["num_experts_per_tok"] = required("expert_used_count");
      return;
    }
    if (model_type != "qwen2_moe" && model_type != "qwen3_moe") {
      return;
    }
    out_["num_experts"] = required("expert_count");
    out_["num_experts_per_tok"] = required("expert_used_count");
    out_["moe_intermediate_size"] = rows("expert_feed_forward_length", "ffn_up_exps.weight", 1);
    if (model_type == "qwen2_moe") {
      out_["shared_expert_intermediate_size"] =
          rows("expert_shared_feed_forward_length", "ffn_up_shexp.weight", 0);
    }
    // Not said by older files: Qwen 3's weights are scaled to a sum of one, Qwen 2's are not.
    out_["norm_topk_prob"] =
        gguf_.boolean(key("expert_weights_norm")).value_or(model_type == "qwen3_moe");
    std::vector<int64_t> dense;
    for (int64_t i = 0; i < layers_; ++i) {
      if (!has("blk." + std::to_string(i) + ".ffn_gate_inp.weight")) {
        dense.push_back(i);
      }
    }
    out_["mlp_only_layers"] = dense;
  }

  // A size that older files leave to the tensors.
  int64_t rows(const char* name, const std::string& part, size_t axis) const {
    if (const auto value = integer(name); value && *value > 0) {
      return *value;
    }
    for (const auto& [tensor_name, tensor] : checkpoint_.tensors()) {
      const size_t end = tensor_name.size() - std::min(tensor_name.size(), part.size());
      if (tensor_name.compare(end, std::string::npos, part) == 0 && tensor.dims.size() > axis) {
        return tensor.dims[axis];
      }
    }
    gguf_.corrupt(key(name), "is missing");
  }

  const Checkpoint& checkpoint_;
  const Gguf& gguf_;
  const GgufArchitecture& facts_;
  int64_t layers_ = 0, hidden_ = 0, heads_ = 0, head_dim_ = 0;
  Json out_;
};

std::string token_key(const char* name) { return "tokenizer.ggml." + std::string(name); }

// Control tokens that end an answer, whatever metadata says: templates of chat models close a turn
// with them, and many files name only the end of the text.
constexpr std::string_view kEnds[] = {"<|eot_id|>",    "<|eom_id|>",        "<|end_of_text|>",
                                      "<|im_end|>",    "<|end|>",           "<end_of_turn>",
                                      "<|endoftext|>", "<end_of_utterance>"};

}  // namespace

std::optional<int32_t> gguf_token_id(const Gguf& gguf, const char* name, size_t tokens) {
  const auto id = gguf.integer(token_key(name), -1, UINT32_MAX);
  const bool is_token =
      id && *id >= 0 && static_cast<uint64_t>(*id) < std::min<size_t>(tokens, INT32_MAX);
  const bool needed = name != std::string_view("padding_token_id");
  if (id && !is_token && needed && *id != -1 && *id != UINT32_MAX) {
    gguf.corrupt(token_key(name), std::to_string(*id) + " is not the id of one of the " +
                                      std::to_string(tokens) + " tokens");
  }
  return is_token ? std::optional(static_cast<int32_t>(*id)) : std::nullopt;
}

std::string gguf_config(const Checkpoint& checkpoint) { return ConfigWriter(checkpoint).write(); }

std::string gguf_generation_config(const Gguf& gguf) {
  constexpr int64_t kControl = 3;
  const auto tokens = gguf.strings(token_key("tokens"));
  const size_t count = tokens ? tokens->size() : size_t{INT32_MAX};
  std::vector<int64_t> ids;
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    if (const auto id = gguf_token_id(gguf, name, count)) {
      ids.push_back(*id);
    }
  }
  const auto types = gguf.integers(token_key("token_type"), INT32_MIN, INT32_MAX);
  for (size_t i = 0; tokens && types && i < std::min(tokens->size(), types->size()); ++i) {
    if ((*types)[i] == kControl &&
        std::find(std::begin(kEnds), std::end(kEnds), (*tokens)[i]) != std::end(kEnds)) {
      ids.push_back(static_cast<int64_t>(i));
    }
  }
  return text_of({{"eos_token_id", ids}});
}

std::string gguf_tokenizer_config(const Gguf& gguf) {
  Json out = Json::object();
  const auto tokens = gguf.strings(token_key("tokens"));
  const struct {
    const char *name, *hugging_face;
  } special[] = {{"bos_token_id", "bos_token"},
                 {"eos_token_id", "eos_token"},
                 {"unknown_token_id", "unk_token"},
                 {"padding_token_id", "pad_token"}};
  for (const auto& [name, hugging_face] : special) {
    const auto id = tokens ? gguf_token_id(gguf, name, tokens->size()) : std::nullopt;
    if (id) {
      out[hugging_face] = (*tokens)[static_cast<size_t>(*id)];
    }
  }
  for (const char* name : {"add_bos_token", "add_eos_token"}) {
    if (const auto add = gguf.boolean(token_key(name))) {
      out[name] = *add;
    }
  }
  const std::string main_key = "tokenizer.chat_template";
  Json named = Json::array();
  for (const std::string_view key : gguf.keys()) {
    if (key.size() > main_key.size() + 1 && key.substr(0, main_key.size() + 1) == main_key + ".") {
      named.push_back({{"name", key.substr(main_key.size() + 1)}, {"template", *gguf.string(key)}});
    }
  }
  const auto main = gguf.string(main_key);
  if (main && named.empty()) {
    out["chat_template"] = *main;
  } else if (main || !named.empty()) {
    if (main) {
      named.insert(named.begin(), Json{{"name", "default"}, {"template", *main}});
    }
    out["chat_template"] = named;
  }
  return text_of(out);
}

}  // namespace llorch
