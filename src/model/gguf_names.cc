#include "model/gguf_names.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "formats/file_error.h"
#include "model/model_config.h"

namespace llorch {
namespace {

// The part of a name between "blk.N." or "model.layers.N." and ".weight" or ".bias"; a star stands
// for the number of an expert, and for a tensor of all experts in GGUF.
struct Part {
  std::string_view gguf, hugging_face;
};

constexpr Part kCommon[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr Part kMixtral[] = {
    {"ffn_gate_inp", "block_sparse_moe.gate"},
    {"ffn_gate_exps", "block_sparse_moe.experts.*.w1"},
    {"ffn_down_exps", "block_sparse_moe.experts.*.w2"},
    {"ffn_up_exps", "block_sparse_moe.experts.*.w3"},
};
constexpr Part kQwenMoe[] = {
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.*.gate_proj"},
    {"ffn_down_exps", "mlp.experts.*.down_proj"},
    {"ffn_up_exps", "mlp.experts.*.up_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
};
constexpr Part kGemma[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};
constexpr Part kPhi[] = {
    {"attn_output", "self_attn.dense"},
    {"attn_q_norm", "self_attn.q_layernorm"},
    {"attn_k_norm", "self_attn.k_layernorm"},
    {"ffn_up", "mlp.fc1"},
    {"ffn_down", "mlp.fc2"},
};
constexpr Part kPhi3[] = {
    {"attn_qkv", "self_attn.qkv_proj"},
    {"ffn_up", "mlp.gate_up_proj"},
};

struct Architecture {
  GgufArchitecture facts;
  std::span<const Part> parts;  // before kCommon
};
constexpr Architecture kArchitectures[] = {
    {{"llama", "llama", true, false}, kMixtral},
    {{"mistral", "mistral", true, false}, kMixtral},
    {{"phi2", "phi", false, false}, kPhi},
    {{"phi3", "phi3", false, false}, kPhi3},
    {{"qwen2", "qwen2", false, false}, {}},
    {{"qwen2moe", "qwen2_moe", false, false}, kQwenMoe},
    {{"qwen3", "qwen3", false, false}, {}},
    {{"qwen3moe", "qwen3_moe", false, false}, kQwenMoe},
    {{"gemma2", "gemma2", false, true}, kGemma},
    {{"gemma3", "gemma3_text", false, true}, kGemma},
    {{"smollm3", "smollm3", true, false}, {}},
};

const Architecture& find_architecture(const Gguf& gguf) {
  const auto named = gguf.string("general.architecture");
  if (!named) {
    gguf.corrupt("general.architecture", "is missing");
  }
  std::string supported;
  for (const Architecture& architecture : kArchitectures) {
    if (*named == architecture.facts.name) {
      return architecture;
    }
    supported += (supported.empty() ? "" : ", ") + std::string(architecture.facts.name);
  }
  throw Error(ErrorCode::kUnsupported,
              "unsupported architecture '" + printable(*named) + "'; supported: " + supported);
}

std::string_view final_norm(const Architecture& architecture) {
  return architecture.facts.model_type == std::string_view("phi") ? "model.final_layernorm"
                                                                  : "model.norm";
}

const Part* find_part(const Architecture& architecture, std::string_view Part::*side,
                      std::string_view wanted) {
  for (const std::span<const Part> parts : {architecture.parts, std::span<const Part>(kCommon)}) {
    for (const Part& part : parts) {
      if (part.*side == wanted) {
        return &part;
      }
    }
  }
  return nullptr;
}

bool all_digits(std::string_view text) {
  return !text.empty() && text.size() < 6 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "blk.7.attn_q.weight", or "model.layers.7.self_attn.q_proj.weight", in pieces.
struct LayerName {
  std::string_view layer, part, suffix;  // "7", "attn_q", ".weight"
};
std::optional<LayerName> parse_layer_name(std::string_view name, std::string_view prefix) {
  if (name.substr(0, prefix.size()) != prefix) {
    return std::nullopt;
  }
  name.remove_prefix(prefix.size());
  const size_t dot = name.find('.'), last = name.rfind('.');
  if (dot == std::string_view::npos || dot == last || !all_digits(name.substr(0, dot))) {
    return std::nullopt;
  }
  return LayerName{name.substr(0, dot), name.substr(dot + 1, last - dot - 1), name.substr(last)};
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Gives every tensor of a file its other name, cut into what weights.cc asks for.
class Renamer {
 public:
  Renamer(const Gguf& gguf, const Architecture& architecture)
      : gguf_(gguf), architecture_(architecture) {}

  void add(const StoredTensor& tensor) {
    // Frequency factors are part of the configuration.
    if (tensor.name.compare(0, 5, "rope_") == 0) {
      return;
    }
    const std::string_view global[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                          {"output.weight", "lm_head.weight"},
                                          {"output.bias", "lm_head.bias"}};
    for (const auto& [gguf_name, name] : global) {
      if (tensor.name == gguf_name) {
        return put(std::string(name), tensor);
      }
    }
    for (const std::string_view suffix : {".weight", ".bias"}) {
      if (tensor.name == "output_norm" + std::string(suffix)) {
        return put(std::string(final_norm(architecture_)).append(suffix), norm(tensor));
      }
    }
    const auto name = parse_layer_name(tensor.name, "blk.");
    if (!name || !add_of_layer(*name, tensor)) {
      throw_unsupported(tensor.file, tensor.name,
                        std::string("is no tensor of the architecture ") +
                            architecture_.facts.name + " that is known here");
    }
  }

  Checkpoint::Tensors take() { return std::move(tensors_); }

 private:
  bool add_of_layer(const LayerName& name, const StoredTensor& tensor) {
    layer_ = "model.layers." + std::string(name.layer) + ".";
    suffix_ = name.suffix;
    const Part* part = find_part(architecture_, &Part::gguf, name.part);
    if (part == nullptr && name.part == "attn_qkv") {
      add_fused_attention(tensor);
      return true;
    }
    if (part == nullptr && name.part == "ffn_gate_up_exps") {
      add_fused_experts(tensor);
      return true;
    }
    if (part == nullptr) {
      return add_old_expert(name, tensor);
    }
    if (part->hugging_face.find('*') != std::string_view::npos) {
      add_experts(part->hugging_face, tensor);
    } else if (name.part == "attn_q" || name.part == "attn_k") {
      put_part(part->hugging_face,
               paired(tensor, name.part == "attn_q" ? query_heads() : kv_heads()));
    } else if (name.part == "ffn_gate_inp_shexp") {
      StoredTensor row = tensor;
      if (row.dims.size() == 1) {
        row.dims.insert(row.dims.begin(), 1);
      }
      put_part(part->hugging_face, row);
    } else {
      put_part(part->hugging_face, ends_with(name.part, "norm") ? norm(tensor) : tensor);
    }
    return true;
  }

  // Before experts were stacked: "blk.7.ffn_gate.3.weight".
  bool add_old_expert(const LayerName& name, const StoredTensor& tensor) {
    const size_t dot = name.part.find('.');
    if (dot == std::string_view::npos || !all_digits(name.part.substr(dot + 1))) {
      return false;
    }
    const Part* part = find_part(architecture_, &Part::gguf,
                                 std::string(name.part.substr(0, dot)).append("_exps"));
    if (part == nullptr) {
      return false;
    }
    put_part(numbered(part->hugging_face, std::string(name.part.substr(dot + 1))), tensor);
    return true;
  }

  // Also sees to it that the file has bytes for each of them.
  static void check_stack(const StoredTensor& tensor) {
    if (tensor.dims.size() != 3 || tensor.dims[0] < 1 || tensor.dims[0] > kMaxExperts ||
        tensor.bytes.size() < static_cast<size_t>(tensor.dims[0])) {
      corrupt(tensor, "must stack 1 to " + std::to_string(kMaxExperts) + " matrices");
    }
  }

  void add_experts(std::string_view part, const StoredTensor& tensor) {
    check_stack(tensor);
    for (int64_t i = 0; i < tensor.dims[0]; ++i) {
      put_part(numbered(part, std::to_string(i)), slice(tensor, i, tensor.dims[0]));
    }
  }

  // Each expert's gate, then its up projection.
  void add_fused_experts(const StoredTensor& tensor) {
    const Part* gate = find_part(architecture_, &Part::gguf, "ffn_gate_exps");
    const Part* up = find_part(architecture_, &Part::gguf, "ffn_up_exps");
    check_stack(tensor);
    if (gate == nullptr || tensor.dims[1] % 2 != 0) {
      corrupt(tensor, "must hold the experts' gates and up projections");
    }
    for (int64_t i = 0; i < tensor.dims[0]; ++i) {
      const StoredTensor expert = slice(tensor, i, tensor.dims[0]);
      const int64_t half = expert.dims[0] / 2;
      put_part(numbered(gate->hugging_face, std::to_string(i)), rows(expert, 0, half));
      put_part(numbered(up->hugging_face, std::to_string(i)), rows(expert, half, half));
    }
  }

  // q's rows, then k's, then v's.
  void add_fused_attention(const StoredTensor& tensor) {
    const int64_t all = query_heads() + 2 * kv_heads();
    if (tensor.dims.empty() || tensor.dims[0] % all != 0 || tensor.dims[0] == 0 ||
        is_blocked_vector(tensor)) {
      corrupt(tensor, "must have rows for " + std::to_string(all) + " heads");
    }
    const int64_t head = tensor.dims[0] / all, query = query_heads() * head, kv = kv_heads() * head;
    put_part("self_attn.q_proj", paired(rows(tensor, 0, query), query_heads()));
    put_part("self_attn.k_proj", paired(rows(tensor, query, kv), kv_heads()));
    put_part("self_attn.v_proj", rows(tensor, query + kv, kv));
  }

  // Matrix `i` of `count`.
  static StoredTensor slice(StoredTensor tensor, int64_t i, int64_t count) {
    const size_t size = tensor.bytes.size() / static_cast<size_t>(count);
    tensor.bytes = tensor.bytes.subspan(static_cast<size_t>(i) * size, size);
    tensor.dims.erase(tensor.dims.begin());
    return tensor;
  }
  static StoredTensor rows(StoredTensor tensor, int64_t first, int64_t count) {
    const size_t size = tensor.bytes.size() / static_cast<size_t>(tensor.dims[0]);
    tensor.bytes =
        tensor.bytes.subspan(static_cast<size_t>(first) * size, static_cast<size_t>(count) * size);
    tensor.dims[0] = count;
    return tensor;
  }
  // One value a row, but several in a block.
  static bool is_blocked_vector(const StoredTensor& tensor) {
    return tensor.dims.size() == 1 && tensor.blocks != nullptr;
  }

  StoredTensor paired(StoredTensor tensor, int64_t heads) const {
    if (!architecture_.facts.paired_heads) {
      return tensor;
    }
    if (tensor.dims.empty() || tensor.dims[0] == 0 || tensor.dims[0] % (2 * heads) != 0 ||
        is_blocked_vector(tensor)) {
      corrupt(tensor,
              "must have an even number of rows for each of " + std::to_string(heads) + " heads");
    }
    tensor.paired_heads = static_cast<int>(heads);
    return tensor;
  }

  StoredTensor norm(StoredTensor tensor) const {
    if (!architecture_.facts.norms_plus_1 || !tensor.type) {
      return tensor;
    }
    if (tensor.blocks == nullptr) {
      constexpr uint32_t kF32 = 0, kF16 = 1, kBF16 = 30;
      tensor.blocks = find_ggml_type(*tensor.type == DType::kF16    ? kF16
                                     : *tensor.type == DType::kBF16 ? kBF16
                                                                    : kF32);
      tensor.type = DType::kF32;
    }
    tensor.shift = -1;
    return tensor;
  }

  int64_t query_heads() const { return heads("attention.head_count", 0); }
  int64_t kv_heads() const { return heads("attention.head_count_kv", query_heads()); }
  int64_t heads(const char* name, int64_t otherwise) const {
    const std::string key = std::string(architecture_.facts.name) + "." + name;
    const auto count = gguf_.integer(key, 1, kMaxHeads);
    if (!count && otherwise == 0) {
      gguf_.corrupt(key, "is missing");
    }
    return count.value_or(otherwise);
  }

  static std::string numbered(std::string_view part, const std::string& expert) {
    return std::string(part).replace(part.find('*'), 1, expert);
  }
  void put_part(std::string_view part, StoredTensor tensor) {
    put(layer_ + std::string(part) + suffix_, std::move(tensor));
  }
  void put(std::string name, StoredTensor tensor) {
    const auto [at, added] = tensors_.try_emplace(std::move(name), std::move(tensor));
    if (!added) {
      corrupt(at->second, "is there in two forms");
    }
  }
  [[noreturn]] static void corrupt(const StoredTensor& tensor, std::string_view reason) {
    throw_corrupt(tensor.file, tensor.name, reason);
  }

  const Gguf& gguf_;
  const Architecture& architecture_;
  std::string layer_, suffix_;  // of the tensor that is added
  Checkpoint::Tensors tensors_;
};

}  // namespace

const GgufArchitecture& gguf_architecture(const Gguf& gguf) {
  return find_architecture(gguf).facts;
}

Checkpoint::Tensors hugging_face_tensors(const Checkpoint& checkpoint) {
  Renamer renamer(*checkpoint.gguf(), find_architecture(*checkpoint.gguf()));
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    renamer.add(tensor);
  }
  return renamer.take();
}

std::string gguf_tensor_name(const Gguf& gguf, const std::string& name) {
  const Architecture& architecture = find_architecture(gguf);
  if (name == "model.embed_tokens.weight") {
    return "token_embd.weight";
  }
  if (name.compare(0, 8, "lm_head.") == 0) {
    return "output" + name.substr(7);
  }
  const std::string norm(final_norm(architecture));
  if (name.compare(0, norm.size() + 1, norm + ".") == 0) {
    return "output_norm" + name.substr(norm.size());
  }
  const auto layer = parse_layer_name(name, "model.layers.");
  if (!layer) {
    return name;
  }
  std::string part(layer->part);
  if (const size_t experts = part.find("experts."); experts != std::string::npos) {
    const size_t number = experts + 8, dot = part.find('.', number);
    if (dot != std::string::npos) {
      part.replace(number, dot - number, "*");
    }
  }
  const Part* found = find_part(architecture, &Part::hugging_face, part);
  return found == nullptr ? name
                          : "blk." + std::string(layer->layer) + "." + std::string(found->gguf) +
                                std::string(layer->suffix);
}

}  // namespace llorch
