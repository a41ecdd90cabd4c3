#include "model/weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "base/os.h"
#include "formats/file_error.h"
#include "formats/quantize.h"
#include "model/finite.h"
#include "model/tensors.h"
#include "ops/dtype.h"
#include "ops/unpack.h"

namespace llorch {
namespace {

constexpr char kEmbed[] = "model.embed_tokens";
constexpr char kHead[] = "lm_head";

enum class Role : uint8_t { kLinear, kTable, kSmall };  // kTable: embedding, head

// One weight to be made, all its tensors found and checked.
struct Planned {
  Weight* target;
  std::vector<StoredTensor> parts, biases;
  float add = 0;  // to every element
  Role role = Role::kSmall;
  int layer = -1;  // -1: of none
};

template <class Body>
void for_tensors(const Planned& planned, const Body& body) {
  for (const auto* list : {&planned.parts, &planned.biases}) {
    for (const StoredTensor& tensor : *list) body(tensor);
  }
}

// A linear layer's rows: `name`.weight and, where config says so, `name`.bias.
struct Linear {
  std::string name;
  int rows;
};

class Plan {
 public:
  explicit Plan(const Checkpoint& checkpoint) : tensors_(checkpoint) {}

  const Tensors& tensors() const { return tensors_; }

  void norm(NormWeights* target, const std::string& name, int size, const ModelConfig& c) {
    add({&target->gain,
         {tensors_.require(name + ".weight", {size})},
         {},
         c.norms_store_gain_minus_1 ? 1.0f : 0.0f});
    if (c.norm_kind == NormKind::kLayer) {
      add({&target->bias, {tensors_.require(name + ".bias", {size})}, {}});
    }
  }

  void matrix(Weight* target, const std::vector<Linear>& linears, int cols, bool bias,
              Role role = Role::kLinear) {
    Planned planned{target, {}, {}, 0, role};
    for (const Linear& linear : linears) {
      planned.parts.push_back(tensors_.require(linear.name + ".weight", {linear.rows, cols}));
      const std::string bias_name = linear.name + ".bias";
      if (bias) {
        planned.biases.push_back(tensors_.require(bias_name, {linear.rows}));
      } else if (const StoredTensor* unannounced = tensors_.find(bias_name)) {
        throw_corrupt(unannounced->file, unannounced->name,
                      "a bias that config.json does not announce for this architecture");
      }
    }
    add(std::move(planned));
  }

  // The embedding's rows with a bias of the head's own.
  void tied_head(Weight* target, const ModelConfig& c) {
    add({target,
         {tensors_.require(std::string(kEmbed) + ".weight", {c.vocab, c.hidden})},
         {tensors_.require(std::string(kHead) + ".bias", {c.vocab})},
         0,
         Role::kTable});
  }

  void part(Weight* target, const std::string& name, int index, int count, int rows, int cols) {
    add({target, {tensors_.require_part(name, index, count, {rows, cols})}, {}, 0, Role::kLinear});
  }

  int layer = -1;  // of what is added
  std::vector<Planned> weights;
  std::array<size_t, 3> bytes_of{};  // of what is not quantised, by dtype
  size_t total_bytes = 0;
  bool widened = false;  // some of it is in blocks that no backend takes

 private:
  void add(Planned planned) {
    for (const auto* list : {&planned.parts, &planned.biases}) {
      for (const StoredTensor& tensor : *list) {
        total_bytes += tensor.bytes.size();
        const bool blocked = tensor.blocks != nullptr && tensor.blocks->block_values > 1;
        widened |= blocked && !tensor.block_type();
        if (!blocked) {
          bytes_of[static_cast<size_t>(*tensor.type)] += tensor.bytes.size();
        }
      }
    }
    planned.layer = layer;
    weights.push_back(std::move(planned));
  }

  Tensors tensors_;
};

// A tied checkpoint may still hold a head; it is used only where it differs, as transformers does.
bool has_own_head(const Tensors& tensors, const ModelConfig& config) {
  const StoredTensor* head = tensors.find(std::string(kHead) + ".weight");
  const StoredTensor* embed = tensors.find(std::string(kEmbed) + ".weight");
  return !config.tied_head || (head != nullptr && embed != nullptr &&
                               !(head->dtype == embed->dtype && head->dims == embed->dims &&
                                 std::equal(head->bytes.begin(), head->bytes.end(),
                                            embed->bytes.begin(), embed->bytes.end())));
}

// What a layer's parts are called, after "model.layers.N.".
struct Names {
  const char* out = "self_attn.o_proj";
  const char* q_norm = "self_attn.q_norm";
  const char* k_norm = "self_attn.k_norm";
  const char* out_norm = nullptr;
  const char* mlp_norm = "post_attention_layernorm";
  const char* down_norm = nullptr;
  const char* final_norm = "model.norm";  // of the model: the whole name
};

Names names_of(const ModelConfig& c) {
  Names names;
  switch (c.family) {
    case Family::kPhi:
      names.out = "self_attn.dense";
      names.q_norm = "self_attn.q_layernorm";
      names.k_norm = "self_attn.k_layernorm";
      names.mlp_norm = nullptr;
      names.final_norm = "model.final_layernorm";
      break;
    case Family::kGemma2:
    case Family::kGemma3:
      names.out_norm = "post_attention_layernorm";
      names.mlp_norm = "pre_feedforward_layernorm";
      names.down_norm = "post_feedforward_layernorm";
      break;
    default:
      break;
  }
  return names;
}

class LayerPlanner {
 public:
  LayerPlanner(Plan* plan, const ModelConfig& c, const Names& names, int layer)
      : plan_(*plan), c_(c), names_(names), layer_(layer) {}

  void plan(LayerWeights* out) {
    norm(&out->attn_norm, "input_layernorm");
    attention(out);
    norm(&out->out_norm, names_.out_norm);
    norm(&out->mlp_norm, names_.mlp_norm);
    if (c_.moe.at(layer_)) {
      moe(&out->moe);
    } else if (c_.family == Family::kPhi) {
      plan_.matrix(&out->gate_up, {{name("mlp.fc1"), c_.ffn}}, c_.hidden, true);
      plan_.matrix(&out->down, {{name("mlp.fc2"), c_.hidden}}, c_.ffn, true);
    } else {
      mlp(&out->gate_up, &out->down, "mlp.", c_.ffn);
    }
    norm(&out->down_norm, names_.down_norm);
  }

 private:
  std::string name(const std::string& part) const {
    return "model.layers." + std::to_string(layer_) + "." + part;
  }

  // Null: this family has none.
  void norm(NormWeights* out, const char* part) {
    if (part != nullptr) {
      plan_.norm(out, name(part), c_.hidden, c_);
    }
  }

  void attention(LayerWeights* out) {
    const int query_rows = c_.heads * c_.head_dim, kv_rows = c_.kv_heads * c_.head_dim;
    const std::vector<Linear> qkv =
        c_.fused_projections
            ? std::vector<Linear>{{name("self_attn.qkv_proj"), query_rows + 2 * kv_rows}}
            : std::vector<Linear>{{name("self_attn.q_proj"), query_rows},
                                  {name("self_attn.k_proj"), kv_rows},
                                  {name("self_attn.v_proj"), kv_rows}};
    plan_.matrix(&out->qkv, qkv, c_.hidden, c_.qkv_bias);
    if (c_.qk_norm) {
      plan_.norm(&out->q_norm, name(names_.q_norm), c_.head_dim, c_);
      plan_.norm(&out->k_norm, name(names_.k_norm), c_.head_dim, c_);
    }
    plan_.matrix(&out->out, {{name(names_.out), c_.hidden}}, query_rows, c_.out_bias);
  }

  void mlp(Weight* gate_up, Weight* down, const std::string& part, int ffn) {
    const std::vector<Linear> linears =
        c_.fused_projections
            ? std::vector<Linear>{{name(part + "gate_up_proj"), 2 * ffn}}
            : std::vector<Linear>{{name(part + "gate_proj"), ffn}, {name(part + "up_proj"), ffn}};
    plan_.matrix(gate_up, linears, c_.hidden, c_.mlp_bias);
    plan_.matrix(down, {{name(part + "down_proj"), c_.hidden}}, ffn, c_.mlp_bias);
  }

  // Experts lie one by one, as published, or stacked, as transformers 5 holds them.
  void moe(MoeWeights* out) {
    const MoeConfig& m = c_.moe;
    const bool mixtral = c_.family == Family::kMixtral;
    const bool renamed = plan_.tensors().find(name("mlp.gate.weight")) != nullptr;
    const std::string block = mixtral && !renamed ? "block_sparse_moe." : "mlp.";
    const char* gate = mixtral ? "w1" : "gate_proj";
    const char* up = mixtral ? "w3" : "up_proj";
    const char* down = mixtral ? "w2" : "down_proj";
    plan_.matrix(&out->router, {{name(block + "gate"), m.experts}}, c_.hidden, false, Role::kSmall);
    out->gate_up.resize(static_cast<size_t>(m.experts));
    out->down.resize(static_cast<size_t>(m.experts));
    const std::string stacked = name(block + "experts.gate_up_proj");
    const bool is_stacked = plan_.tensors().find(stacked) != nullptr;
    for (int i = 0; i < m.experts; ++i) {
      Weight* gate_up_weight = &out->gate_up[static_cast<size_t>(i)];
      Weight* down_weight = &out->down[static_cast<size_t>(i)];
      if (is_stacked) {
        plan_.part(gate_up_weight, stacked, i, m.experts, 2 * m.ffn, c_.hidden);
        plan_.part(down_weight, name(block + "experts.down_proj"), i, m.experts, c_.hidden, m.ffn);
        continue;
      }
      const std::string expert = name(block + "experts." + std::to_string(i) + ".");
      plan_.matrix(gate_up_weight, {{expert + gate, m.ffn}, {expert + up, m.ffn}}, c_.hidden,
                   false);
      plan_.matrix(down_weight, {{expert + down, c_.hidden}}, m.ffn, false);
    }
    if (m.shared_ffn != 0) {
      mlp(&out->shared_gate_up, &out->shared_down, "mlp.shared_expert.", m.shared_ffn);
      plan_.matrix(&out->shared_gate, {{name("mlp.shared_expert_gate"), 1}}, c_.hidden, false,
                   Role::kSmall);
    }
  }

  Plan& plan_;
  const ModelConfig& c_;
  const Names& names_;
  int layer_;
};

Plan make_plan(const Checkpoint& checkpoint, const ModelConfig& c, Weights* out) {
  Plan plan(checkpoint);
  const Names names = names_of(c);
  out->layers.resize(static_cast<size_t>(c.layers));
  plan.matrix(&out->embed, {{kEmbed, c.vocab}}, c.hidden, false, Role::kTable);
  for (int i = 0; i < c.layers; ++i) {
    plan.layer = i;
    LayerPlanner(&plan, c, names, i).plan(&out->layers[static_cast<size_t>(i)]);
  }
  plan.layer = -1;
  plan.norm(&out->norm, names.final_norm, c.hidden, c);
  if (has_own_head(plan.tensors(), c)) {
    plan.matrix(&out->head, {{kHead, c.vocab}}, c.hidden, c.head_bias, Role::kTable);
  } else if (c.head_bias) {
    plan.tied_head(&out->head, c);
  }
  return plan;
}

// The values of one tensor as a device packs them.
struct Checked {
  RawTensor raw;
  // Where they are not as stored; raw.bytes then point into one of these.
  std::vector<std::byte> decoded;
  std::vector<float> changed;
};

Shape shape_of(const StoredTensor& tensor) {
  const auto dim = [&](size_t i) { return static_cast<int32_t>(tensor.dims[i]); };
  return tensor.dims.size() == 1 ? Shape{1, dim(0)} : Shape{dim(0), dim(1)};
}

[[noreturn]] void throw_not_finite(const StoredTensor& tensor, size_t element, DType dtype) {
  throw_corrupt(tensor.file, tensor.name,
                "element " + std::to_string(element) + " is not a finite " + name(dtype));
}

// Blocks that stay as they are stored.
Checked check_blocks(const StoredTensor& tensor, DType type) {
  Checked checked;
  const auto bytes = tensor.read_blocks(&checked.decoded);
  const BlockLayout block = block_layout(type);
  const auto block_bytes = static_cast<size_t>(block.bytes);
  for (size_t i = 0; i < bytes.size() / block_bytes; ++i) {
    if (!is_finite(type, bytes.data() + i * block_bytes)) {
      throw_not_finite(tensor, i * static_cast<size_t>(block.values), DType::kF32);
    }
  }
  checked.raw = {tensor.name, type, shape_of(tensor), bytes};
  return checked;
}

Checked check_values(const StoredTensor& tensor, DType dtype, float add) {
  Checked checked;
  const auto bytes = tensor.read(&checked.decoded);
  if (const auto bad = find_not_finite(bytes, *tensor.type, dtype)) {
    throw_not_finite(tensor, *bad, dtype);
  }
  const Shape shape = shape_of(tensor);
  checked.raw = {tensor.name, *tensor.type, shape, bytes};
  if (add != 0) {
    checked.changed = to_f32(bytes, *tensor.type, static_cast<size_t>(shape.cols));
    for (float& value : checked.changed) {
      value += add;
    }
    checked.raw.type = DType::kF32;
    checked.raw.bytes = std::as_bytes(std::span(checked.changed));
  }
  return checked;
}

// What `wanted` makes of a weight: llama.cpp too keeps tables in more bits, and rows that are no
// whole blocks of 256 in blocks of 32. None: it stays what it is.
std::optional<DType> quantised_as(DType wanted, Role role, int32_t cols) {
  if (role == Role::kSmall) return std::nullopt;
  const bool bytes = wanted == DType::kQ8_0 || wanted == DType::kF8E4M3;
  if (role == Role::kTable && !bytes) wanted = DType::kQ6_K;
  for (const DType type : {wanted, DType::kQ8_0}) {
    if (cols % block_layout(type).values == 0) return type;
  }
  return std::nullopt;
}

// Calls body(row) for each row, on as many threads as there are processors.
template <class Body>
void on_all_processors(int32_t rows, const Body& body) {
  const int32_t threads = std::clamp(os::usable_cpus(), 1, rows);
  std::vector<std::jthread> running;
  for (int32_t i = 0; i < threads; ++i) {
    running.emplace_back([=, &body] {
      for (int32_t row = i; row < rows; row += threads) body(row);
    });
  }
}

void quantise_values(DType type, Checked* checked) {
  const RawTensor raw = checked->raw;
  const uint64_t from_bytes = row_bytes(raw.type, raw.shape.cols),
                 to_bytes = row_bytes(type, raw.shape.cols);
  std::vector<std::byte> blocks(static_cast<size_t>(raw.shape.rows) * to_bytes);
  on_all_processors(raw.shape.rows, [&](int32_t row) {
    const auto at = static_cast<uint64_t>(row);
    const auto values = to_f32(raw.bytes.subspan(at * from_bytes, from_bytes), raw.type,
                               static_cast<size_t>(raw.shape.cols));
    quantize(ggml_type_of(type), values, blocks.data() + at * to_bytes);
  });
  checked->decoded = std::move(blocks);
  checked->raw.type = type;
  checked->raw.bytes = checked->decoded;
}

Checked check(const StoredTensor& tensor, const Planned& planned, const WeightTypes& types) {
  const Shape shape = shape_of(tensor);
  if (shape.rows == 1) return check_values(tensor, DType::kF32, planned.add);
  if (types.keep_blocks) {
    if (const auto blocks = tensor.block_type()) return check_blocks(tensor, *blocks);
  }
  const auto quantised =
      types.quantize ? quantised_as(*types.quantize, planned.role, shape.cols) : std::nullopt;
  Checked checked = check_values(tensor, quantised ? DType::kF32 : types.plain, planned.add);
  if (quantised) quantise_values(*quantised, &checked);
  return checked;
}

// What is packed next, read and checked.
struct Loaded {
  std::vector<Checked> checked;  // keeps values that are not as stored until they are packed
  std::vector<RawTensor> parts, biases;
};

// Reads the weights of a plan in its order, in a thread of its own one weight ahead of who packs
// them; what the file has of those behind it is on its way by then.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const std::vector<Planned>& weights,
         const WeightTypes& types)
      : checkpoint_(checkpoint), weights_(weights), types_(types) {
    begin();
  }

  // Throws what is wrong with it.
  Loaded next() {
    Loaded loaded = loading_.get();
    begin();
    return loaded;
  }

 private:
  void begin() {
    if (at_ < weights_.size()) {
      loading_ = std::async(std::launch::async, [this, at = at_++] { return load(weights_[at]); });
    }
  }

  Loaded load(const Planned& planned) {
    read_ahead();
    Loaded loaded;
    for (const StoredTensor& tensor : planned.parts) {
      loaded.checked.push_back(check(tensor, planned, types_));
      loaded.parts.push_back(loaded.checked.back().raw);
    }
    for (const StoredTensor& tensor : planned.biases) {
      loaded.checked.push_back(check_values(tensor, DType::kF32, 0));
      loaded.biases.push_back(loaded.checked.back().raw);
    }
    for_tensors(planned, [&](const StoredTensor& tensor) { ahead_bytes_ -= tensor.bytes.size(); });
    return loaded;
  }

  void read_ahead() {
    constexpr uint64_t kBytes = 64 << 20;
    for (; asked_ < weights_.size() && ahead_bytes_ < kBytes; ++asked_) {
      for_tensors(weights_[asked_], [&](const StoredTensor& tensor) {
        checkpoint_.read_ahead(tensor);
        ahead_bytes_ += tensor.bytes.size();
      });
    }
  }

  const Checkpoint& checkpoint_;
  const std::vector<Planned>& weights_;
  const WeightTypes& types_;
  size_t at_ = 0;                // of the next to begin with
  size_t asked_ = 0;             // of the first that the kernel has not been asked to read
  uint64_t ahead_bytes_ = 0;     // of those that it has, and which are not loaded
  std::future<Loaded> loading_;  // last, so that it ends first
};

// A vector, or a matrix that check() takes for one.
std::vector<float> vector_values(const StoredTensor& tensor, float add) {
  std::vector<std::byte> scratch;
  auto values =
      to_f32(tensor.read(&scratch), *tensor.type, static_cast<size_t>(shape_of(tensor).cols));
  for (float& value : values) value += add;
  return values;
}

// The rows of a tensor as check() and pack() make them, one by one.
SourceRows source_rows(const StoredTensor& tensor, const Planned& planned,
                       const WeightTypes& types) {
  const Shape shape = shape_of(tensor);
  if (shape.rows == 1) {
    const bool alone = planned.parts.size() == 1;
    const DType type = alone ? DType::kF32 : types.plain;
    return {1, type, [type, row = vector_values(tensor, planned.add)](int32_t, auto values) {
              std::ranges::transform(row, values.begin(),
                                     [&](float v) { return rounded(v, type); });
            }};
  }
  const auto stored = types.keep_blocks ? tensor.block_type() : std::nullopt;
  if (stored) {
    return {shape.rows, *stored, [tensor](int32_t row, std::span<float> values) {
              tensor.read_row(static_cast<size_t>(row), values);
            }};
  }
  const auto made =
      types.quantize ? quantised_as(*types.quantize, planned.role, shape.cols) : std::nullopt;
  const DType type = made.value_or(types.plain);
  return {shape.rows, type, [tensor, made, type](int32_t row, std::span<float> values) {
            tensor.read_row(static_cast<size_t>(row), values);
            if (made) {
              std::vector<std::byte> blocks(row_bytes(type, static_cast<int64_t>(values.size())));
              quantize(ggml_type_of(type), values, blocks.data());
              dequantize(ggml_type_of(type), blocks, values.data());
            } else if (type != *tensor.type) {
              for (float& value : values) value = rounded(value, type);
            }
          }};
}

WeightSource source_of(const Planned& planned, const WeightTypes& types) {
  WeightSource source{.layer = planned.layer, .shape = {0, shape_of(planned.parts[0]).cols}};
  std::string biases;
  for (size_t i = 0; i < planned.parts.size(); ++i) {
    const StoredTensor& part = planned.parts[i];
    source.name += (source.name.empty() ? "" : "+") + part.name;
    source.rows.push_back(source_rows(part, planned, types));
    source.shape.rows += source.rows.back().count;
    if (planned.biases.empty()) continue;
    const DType type = source.rows.back().type;
    biases += "+" + planned.biases[i].name;
    for (const float value : vector_values(planned.biases[i], 0)) {
      source.bias.push_back(is_quantised(type) ? value : rounded(value, types.plain));
    }
  }
  source.name += biases;
  return source;
}

}  // namespace

DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config) {
  Weights unused;
  const Plan plan = make_plan(checkpoint, config, &unused);
  if (plan.widened) {
    return DType::kF32;  // which alone holds what blocks stand for
  }
  const auto most = std::max_element(plan.bytes_of.begin(), plan.bytes_of.end());
  return static_cast<DType>(most - plan.bytes_of.begin());
}

Weights load_weights(const Checkpoint& checkpoint, const ModelConfig& config, Backend& backend,
                     const WeightTypes& types, const std::function<void(int percent)>& progress) {
  Weights weights;
  const Plan plan = make_plan(checkpoint, config, &weights);
  std::array<uint64_t, 16> bytes_as{};  // by DType
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
  Reader reader(checkpoint, plan.weights, types);
  for (const Planned& planned : plan.weights) {
    const Loaded loaded = reader.next();
    for (const RawTensor& raw : loaded.parts) {
      const DType kept = is_quantised(raw.type) ? raw.type : types.plain;
      bytes_as.at(static_cast<size_t>(kept)) += raw.bytes.size();
    }
    *planned.target = backend.pack(loaded.parts, types.plain, loaded.biases);
    for_tensors(planned, [&](const StoredTensor& tensor) {
      checkpoint.drop(tensor);
      done_bytes += tensor.bytes.size();
    });
    tell();
  }
  const auto most = std::max_element(bytes_as.begin(), bytes_as.end());
  weights.type = static_cast<DType>(most - bytes_as.begin());
  weights.types = types;
  if (!weights.head) {
    weights.head = weights.embed;
  }
  return weights;
}

WeightSources weight_sources(const Checkpoint& checkpoint, const ModelConfig& config,
                             const Weights& weights, int layers) {
  Weights planned_for = weights;  // so that the plan's targets say which handle is whose
  const Plan plan = make_plan(checkpoint, config, &planned_for);
  WeightSources sources;
  for (const Planned& planned : plan.weights) {
    if (planned.layer >= layers) continue;
    sources.emplace(planned.target->impl.get(), source_of(planned, weights.types));
  }
  return sources;
}

}  // namespace llorch
