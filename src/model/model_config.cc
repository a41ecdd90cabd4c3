#include "model/model_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "formats/file_error.h"
#include "formats/json_reader.h"
#include "model/gemma2.h"
#include "model/gemma3.h"
#include "model/llama.h"
#include "model/mistral.h"
#include "model/mixtral.h"
#include "model/phi.h"
#include "model/phi3.h"
#include "model/qwen2.h"
#include "model/qwen2_moe.h"
#include "model/qwen3.h"
#include "model/qwen3_moe.h"
#include "model/rope.h"
#include "model/smollm3.h"

namespace llorch {
namespace {

constexpr int kMaxEosIds = 1024;
constexpr int kMinRows = 2;  // of a matrix; a backend takes one row for a vector

struct FamilyEntry {
  Family family;
  const char* model_type;
  const char* architecture;
  FamilyDefaults defaults;
  void (*configure)(const JsonReader& config, ModelConfig* out);
};

template <class F>
constexpr FamilyEntry entry(Family family, const char* model_type, const char* architecture) {
  return {family, model_type, architecture, F::kDefaults, F::configure};
}

constexpr FamilyEntry kFamilies[] = {
    entry<Llama>(Family::kLlama, "llama", "LlamaForCausalLM"),
    entry<Mistral>(Family::kMistral, "mistral", "MistralForCausalLM"),
    entry<Mixtral>(Family::kMixtral, "mixtral", "MixtralForCausalLM"),
    entry<Phi>(Family::kPhi, "phi", "PhiForCausalLM"),
    entry<Phi3>(Family::kPhi3, "phi3", "Phi3ForCausalLM"),
    entry<Qwen2>(Family::kQwen2, "qwen2", "Qwen2ForCausalLM"),
    entry<Qwen3>(Family::kQwen3, "qwen3", "Qwen3ForCausalLM"),
    entry<Qwen2Moe>(Family::kQwen2Moe, "qwen2_moe", "Qwen2MoeForCausalLM"),
    entry<Qwen3Moe>(Family::kQwen3Moe, "qwen3_moe", "Qwen3MoeForCausalLM"),
    entry<Gemma2>(Family::kGemma2, "gemma2", "Gemma2ForCausalLM"),
    entry<Gemma3>(Family::kGemma3, "gemma3_text", "Gemma3ForCausalLM"),
    entry<SmolLm3>(Family::kSmolLm3, "smollm3", "SmolLM3ForCausalLM"),
};

// What a model has beside its text decoder, if config.json says so.
const char* other_modality(const JsonReader& config) {
  for (const char* key : {"vision_config", "audio_config"}) {
    if (config.object(key)) {
      return key;
    }
  }
  return nullptr;
}

const FamilyEntry& find_family(const JsonReader& config) {
  const auto model_type = config.string("model_type");
  const auto architectures = config.strings("architectures");
  if (!model_type && (!architectures || architectures->empty())) {
    config.corrupt("model_type", "is missing, and so is architectures");
  }
  const std::string& named = model_type ? *model_type : architectures->front();
  std::string supported;
  for (const FamilyEntry& entry : kFamilies) {
    if (named == (model_type ? entry.model_type : entry.architecture)) {
      return entry;
    }
    supported += (supported.empty() ? "" : ", ") + std::string(entry.model_type);
  }
  std::string message =
      "unsupported architecture '" + printable(named) + "'; supported: " + supported;
  if (const char* key = other_modality(config)) {
    message += std::string("; a vision or audio tower (") + key + ") is not supported";
  }
  throw Error(ErrorCode::kUnsupported, message);
}

int required(const JsonReader& config, const char* key, int least, int most) {
  const auto value = config.integer(key, least, most);
  if (!value) {
    config.corrupt(key, "is missing");
  }
  return static_cast<int>(*value);
}

// Keys that change what any family computes.
void refuse_what_no_family_has(const JsonReader& config) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (const auto quantization = config.object(key)) {
      config.unsupported(key, "quantized checkpoints are not supported yet; quant_method is '" +
                                  printable(quantization->string("quant_method").value_or("")) +
                                  "'");
    }
  }
  if (const char* key = other_modality(config)) {
    config.unsupported(key, "a vision or audio tower is not supported");
  }
  if (config.contains("per_layer_config")) {
    config.unsupported("per_layer_config", "layers of different sizes are not supported");
  }
}

void read_head_sizes(const JsonReader& config, const FamilyDefaults& defaults, ModelConfig* out) {
  out->heads = required(config, "num_attention_heads", 1, kMaxHeads);
  // null means one for each head, in every family.
  const bool absent = !config.contains("num_key_value_heads") && defaults.kv_heads != 0;
  out->kv_heads = static_cast<int>(config.integer("num_key_value_heads", 1, kMaxHeads)
                                       .value_or(absent ? defaults.kv_heads : out->heads));
  if (out->heads % out->kv_heads != 0) {
    config.corrupt("num_key_value_heads", std::to_string(out->kv_heads) + " does not divide the " +
                                              std::to_string(out->heads) + " attention heads");
  }
  if (const auto head_dim = config.integer("head_dim", 1, kMaxHeadDim)) {
    out->head_dim = static_cast<int>(*head_dim);
  } else if (defaults.head_dim != 0) {
    out->head_dim = defaults.head_dim;
  } else if (out->hidden % out->heads != 0) {
    config.corrupt(
        "num_attention_heads",
        std::to_string(out->heads) + " does not divide hidden_size " + std::to_string(out->hidden));
  } else {
    out->head_dim = out->hidden / out->heads;
  }
  if (out->head_dim % 2 != 0 || out->head_dim > kMaxHeadDim) {
    config.corrupt("head_dim", "must be even and at most " + std::to_string(kMaxHeadDim) +
                                   "; got " + std::to_string(out->head_dim));
  }
}

constexpr struct {
  const char* name;
  Act act;
} kActs[] = {
    {"silu", Act::kSilu},
    {"swish", Act::kSilu},
    {"gelu", Act::kGelu},
    {"gelu_python", Act::kGelu},
    {"gelu_pytorch_tanh", Act::kGeluTanh},
    {"gelu_python_tanh", Act::kGeluTanh},
    {"gelu_new", Act::kGeluTanh},
    {"gelu_fast", Act::kGeluTanh},
    {"gelu_accurate", Act::kGeluTanh},
};

Act read_act(const JsonReader& config, const char* key, const char* absent) {
  const std::string named = config.string(key).value_or(absent);
  std::string supported;
  for (const auto& [name, act] : kActs) {
    if (named == name) {
      return act;
    }
    supported += (supported.empty() ? "" : ", ") + std::string(name);
  }
  config.unsupported(key, "'" + printable(named) + "' is not supported; supported: " + supported);
}

void add_eos_ids(const JsonReader& reader, std::set<int32_t>* ids) {
  const auto given = reader.one_or_more_integers("eos_token_id", 0, INT32_MAX);
  if (!given) {
    return;
  }
  if (given->size() > kMaxEosIds) {
    reader.corrupt("eos_token_id", "lists more than " + std::to_string(kMaxEosIds) + " ids");
  }
  for (const int64_t id : *given) {
    ids->insert(static_cast<int32_t>(id));
  }
}

}  // namespace

ModelConfig parse_model_config(std::string_view config, std::string_view generation_config,
                               const std::string& file) {
  const JsonReader reader = JsonReader::parse(config, file);
  const FamilyEntry& entry = find_family(reader);
  refuse_what_no_family_has(reader);
  const FamilyDefaults& defaults = entry.defaults;
  ModelConfig out;
  out.family = entry.family;
  out.architecture = entry.model_type;
  out.layers = required(reader, "num_hidden_layers", 1, kMaxLayers);
  out.hidden = required(reader, "hidden_size", kMinRows, kMaxHidden);
  out.ffn = required(reader, "intermediate_size", kMinRows, kMaxFfn);
  out.vocab = required(reader, "vocab_size", kMinRows, kMaxVocab);
  read_head_sizes(reader, defaults, &out);
  out.norm_eps =
      static_cast<float>(reader.number(defaults.eps_key, 1e-30, 1).value_or(defaults.norm_eps));
  out.act = read_act(reader, defaults.act_key, defaults.act);
  out.tied_head = reader.boolean("tie_word_embeddings").value_or(defaults.tied_head);
  out.attention_scale = static_cast<float>(1 / std::sqrt(out.head_dim));
  out.context = static_cast<int>(
      reader.integer("max_position_embeddings", 1, kMaxContext).value_or(defaults.context));
  out.window.assign(static_cast<size_t>(out.layers), 0);
  out.rope_of_layer.assign(static_cast<size_t>(out.layers), 0);
  entry.configure(reader, &out);
  out.kv = kv_layout(out.window);
  if (out.ropes.empty()) {
    const RopeOptions options{.head_dim = out.head_dim,
                              .context = out.context,
                              .theta = defaults.rope_theta,
                              .may_be_partial = defaults.partial_rotary,
                              .part = defaults.rotary_part,
                              .longrope = defaults.longrope};
    out.ropes = {read_rope(reader, options, &out.context)};
  }

  std::set<int32_t> eos_ids;
  add_eos_ids(reader, &eos_ids);
  if (!generation_config.empty()) {
    const auto path = std::filesystem::path(file).replace_filename("generation_config.json");
    add_eos_ids(JsonReader::parse(generation_config, path.string()), &eos_ids);
  }
  out.eos_ids.assign(eos_ids.begin(), eos_ids.end());
  return out;
}

}  // namespace llorch
