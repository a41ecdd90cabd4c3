#include "model/model_config.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "formats/file_error.h"
#include "formats/json_reader.h"
#include "model/llama.h"
#include "model/mistral.h"
#include "model/qwen.h"
#include "model/rope.h"

namespace llorch {
namespace {

constexpr int kMaxLayers = 4096;
constexpr int kMaxHidden = 1 << 20;
constexpr int kMaxFfn = 1 << 24;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxHeadDim = 1 << 12;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxContext = 1 << 28;
constexpr int kMaxEosIds = 1024;

struct FamilyEntry {
  Family family;
  const char* model_type;
  const char* architecture;
  void (*configure)(const JsonReader& config, ModelConfig* out);
};
constexpr FamilyEntry kFamilies[] = {
    {Family::kLlama, "llama", "LlamaForCausalLM", Llama::configure},
    {Family::kMistral, "mistral", "MistralForCausalLM", Mistral::configure},
    {Family::kQwen2, "qwen2", "Qwen2ForCausalLM", Qwen::configure},
};

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
  throw Error(ErrorCode::kUnsupported,
              "unsupported architecture '" + printable(named) + "'; supported: " + supported);
}

int required(const JsonReader& config, const char* key, int most) {
  const auto value = config.integer(key, 1, most);
  if (!value) {
    config.corrupt(key, "is missing");
  }
  return static_cast<int>(*value);
}

void refuse_quantization(const JsonReader& config) {
  if (const auto quantization = config.object("quantization_config")) {
    config.unsupported("quantization_config",
                       "quantized checkpoints are not supported yet; quant_method is '" +
                           printable(quantization->string("quant_method").value_or("")) + "'");
  }
}

void read_head_sizes(const JsonReader& config, ModelConfig* out) {
  out->heads = required(config, "num_attention_heads", kMaxHeads);
  out->kv_heads =
      static_cast<int>(config.integer("num_key_value_heads", 1, kMaxHeads).value_or(out->heads));
  if (out->heads % out->kv_heads != 0) {
    config.corrupt("num_key_value_heads", std::to_string(out->kv_heads) + " does not divide the " +
                                              std::to_string(out->heads) + " attention heads");
  }
  if (const auto head_dim = config.integer("head_dim", 1, kMaxHeadDim)) {
    out->head_dim = static_cast<int>(*head_dim);
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

Act read_act(const JsonReader& config) {
  const std::string act = config.string("hidden_act").value_or("silu");
  if (act == "silu") {
    return Act::kSilu;
  }
  if (act == "gelu_pytorch_tanh") {
    return Act::kGeluTanh;
  }
  config.unsupported("hidden_act", "'" + printable(act) +
                                       "' is not supported; supported: silu, gelu_pytorch_tanh");
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
  refuse_quantization(reader);
  ModelConfig out;
  out.family = entry.family;
  out.architecture = entry.model_type;
  out.layers = required(reader, "num_hidden_layers", kMaxLayers);
  out.hidden = required(reader, "hidden_size", kMaxHidden);
  out.ffn = required(reader, "intermediate_size", kMaxFfn);
  out.vocab = required(reader, "vocab_size", kMaxVocab);
  read_head_sizes(reader, &out);
  out.norm_eps = static_cast<float>(reader.number("rms_norm_eps", 1e-30, 1).value_or(1e-6));
  out.act = read_act(reader);
  out.tied_head = reader.boolean("tie_word_embeddings").value_or(false);
  out.window.assign(static_cast<size_t>(out.layers), 0);
  entry.configure(reader, &out);
  if (const auto context = reader.integer("max_position_embeddings", 1, kMaxContext)) {
    out.context = static_cast<int>(*context);
  }
  out.rope = read_rope(reader, out.head_dim, out.context);

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
