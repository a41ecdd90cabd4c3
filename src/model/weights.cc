#include "model/weights.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <string>

#include "formats/file_error.h"
#include "model/finite.h"

namespace llorch {
namespace {

constexpr char kEmbed[] = "model.embed_tokens";
constexpr char kHead[] = "lm_head";

std::string layer_name(int layer, const char* part) {
  return "model.layers." + std::to_string(layer) + "." + part;
}

std::string shape_text(const std::vector<int64_t>& dims) {
  std::string text;
  for (const int64_t dim : dims) {
    text += (text.empty() ? "" : ", ") + std::to_string(dim);
  }
  return "[" + text + "]";
}

// One weight to be made, all its tensors found and checked.
struct Planned {
  Weight* target;
  std::vector<const StoredTensor*> parts, biases;
};

// A linear layer's rows: `name`.weight and, where config says so, `name`.bias.
struct Linear {
  std::string name;
  int rows;
};

class Plan {
 public:
  explicit Plan(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  void vector(Weight* target, const std::string& name, int size) {
    add({target, {&find(name + ".weight", {size})}, {}});
  }

  void matrix(Weight* target, const std::vector<Linear>& linears, int cols, bool bias) {
    Planned planned{target, {}, {}};
    for (const Linear& linear : linears) {
      planned.parts.push_back(&find(linear.name + ".weight", {linear.rows, cols}));
      const std::string bias_name = linear.name + ".bias";
      if (bias) {
        planned.biases.push_back(&find(bias_name, {linear.rows}));
      } else if (const StoredTensor* unannounced = checkpoint_.find(bias_name)) {
        throw_corrupt(unannounced->file, bias_name,
                      "a bias that config.json does not announce for this architecture");
      }
    }
    add(std::move(planned));
  }

  const StoredTensor& find(const std::string& name, const std::vector<int64_t>& dims) const {
    const StoredTensor* tensor = checkpoint_.find(name);
    if (tensor == nullptr) {
      throw_corrupt(checkpoint_.path(), name, "is missing");
    }
    if (!tensor->type) {
      throw_unsupported(
          tensor->file, name,
          "dtype " + printable(tensor->dtype) + " is not supported; supported: F32, F16, BF16");
    }
    if (tensor->dims != dims) {
      throw_corrupt(tensor->file, name,
                    "wrong shape; got " + shape_text(tensor->dims) + ", want " + shape_text(dims));
    }
    return *tensor;
  }

  std::vector<Planned> weights;
  size_t total_bytes = 0;

 private:
  void add(Planned planned) {
    for (const auto* list : {&planned.parts, &planned.biases}) {
      for (const StoredTensor* tensor : *list) {
        total_bytes += tensor->bytes.size();
      }
    }
    weights.push_back(std::move(planned));
  }

  const Checkpoint& checkpoint_;
};

// A tied checkpoint may still hold a head; it is used only where it differs, as transformers does.
bool has_own_head(const Checkpoint& checkpoint, const ModelConfig& config) {
  const StoredTensor* head = checkpoint.find(std::string(kHead) + ".weight");
  const StoredTensor* embed = checkpoint.find(std::string(kEmbed) + ".weight");
  return !config.tied_head || (head != nullptr && embed != nullptr &&
                               !(head->dtype == embed->dtype && head->dims == embed->dims &&
                                 std::equal(head->bytes.begin(), head->bytes.end(),
                                            embed->bytes.begin(), embed->bytes.end())));
}

Plan make_plan(const Checkpoint& checkpoint, const ModelConfig& c, Weights* out) {
  Plan plan(checkpoint);
  out->layers.resize(static_cast<size_t>(c.layers));
  plan.matrix(&out->embed, {{kEmbed, c.vocab}}, c.hidden, false);
  for (int i = 0; i < c.layers; ++i) {
    LayerWeights& layer = out->layers[static_cast<size_t>(i)];
    const auto name = [i](const char* part) { return layer_name(i, part); };
    const int query_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
    plan.vector(&layer.attn_norm, name("input_layernorm"), c.hidden);
    plan.matrix(&layer.qkv,
                {{name("self_attn.q_proj"), query_rows},
                 {name("self_attn.k_proj"), kv_rows},
                 {name("self_attn.v_proj"), kv_rows}},
                c.hidden, c.qkv_bias);
    plan.matrix(&layer.out, {{name("self_attn.o_proj"), c.hidden}}, query_rows, c.out_bias);
    plan.vector(&layer.mlp_norm, name("post_attention_layernorm"), c.hidden);
    plan.matrix(&layer.gate_up, {{name("mlp.gate_proj"), c.ffn}, {name("mlp.up_proj"), c.ffn}},
                c.hidden, c.mlp_bias);
    plan.matrix(&layer.down, {{name("mlp.down_proj"), c.hidden}}, c.ffn, c.mlp_bias);
  }
  plan.vector(&out->norm, "model.norm", c.hidden);
  if (has_own_head(checkpoint, c)) {
    plan.matrix(&out->head, {{kHead, c.vocab}}, c.hidden, false);
  }
  return plan;
}

RawTensor checked_raw(const StoredTensor& tensor, DType dtype) {
  if (const auto bad = find_not_finite(tensor.bytes, *tensor.type, dtype)) {
    throw_corrupt(tensor.file, tensor.name,
                  "element " + std::to_string(*bad) + " is not a finite " + name(dtype));
  }
  const bool is_vector = tensor.dims.size() == 1;
  const auto dim = [&](size_t i) { return static_cast<int32_t>(tensor.dims[i]); };
  return {tensor.name, *tensor.type, is_vector ? Shape{1, dim(0)} : Shape{dim(0), dim(1)},
          tensor.bytes};
}

}  // namespace

DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config) {
  return *Plan(checkpoint)
              .find(layer_name(0, "mlp.down_proj") + ".weight", {config.hidden, config.ffn})
              .type;
}

Weights load_weights(const Checkpoint& checkpoint, const ModelConfig& config, Backend& backend,
                     DType dtype, const std::function<void(int percent)>& progress) {
  Weights weights;
  const Plan plan = make_plan(checkpoint, config, &weights);
  size_t done_bytes = 0;
  int told = -1;
  const auto tell = [&] {
    const int percent = static_cast<int>(static_cast<double>(done_bytes) /
                                         static_cast<double>(plan.total_bytes) * 100);
    if (progress && percent > told) {
      progress(told = percent);
    }
  };
  tell();
  for (const Planned& planned : plan.weights) {
    std::vector<RawTensor> parts, biases;
    for (const StoredTensor* tensor : planned.parts) {
      parts.push_back(checked_raw(*tensor, tensor->dims.size() == 1 ? DType::kF32 : dtype));
    }
    for (const StoredTensor* tensor : planned.biases) {
      biases.push_back(checked_raw(*tensor, DType::kF32));
    }
    *planned.target = backend.pack(parts, dtype, biases);
    for (const auto* list : {&planned.parts, &planned.biases}) {
      for (const StoredTensor* tensor : *list) {
        checkpoint.drop(*tensor);
        done_bytes += tensor->bytes.size();
      }
    }
    tell();
  }
  if (!weights.head) {
    weights.head = weights.embed;
  }
  return weights;
}

}  // namespace llorch
