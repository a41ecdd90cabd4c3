#include "random_shape.h"

#include <CLI/CLI.hpp>
#include <stdexcept>

#include "load/words.h"

namespace llorch::bench {
namespace {

struct NamedShape {
  const char* name;
  RandomShape shape;
};
const NamedShape kShapes[] = {
    {"tinyllama-1.1b", {}},
    {"llama-3.2-1b", {16, 2048, 8192, 32, 8, 128256, 131072, true}},
    {"llama-3.1-8b", {32, 4096, 14336, 32, 8, 128256, 131072, false}},
};

struct Names {
  const char *layer, *embed, *final_norm, *head, *attn_norm, *q, *k, *v, *o, *mlp_norm, *gate, *up,
      *down;
};
constexpr Names kTransformers{
    "model.layers.",    "model.embed_tokens",       "model.norm",       "lm_head",
    "input_layernorm",  "self_attn.q_proj",         "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj",    "mlp.up_proj",
    "mlp.down_proj"};
constexpr Names kGguf{"blk.",     "token_embd", "output_norm", "output",      "attn_norm",
                      "attn_q",   "attn_k",     "attn_v",      "attn_output", "ffn_norm",
                      "ffn_gate", "ffn_up",     "ffn_down"};

void check(const RandomShape& shape) {
  if (shape.hidden % shape.heads != 0 || shape.heads % shape.kv_heads != 0) {
    throw std::runtime_error("the heads must divide hidden, and the kv heads the heads");
  }
  if (shape.vocab > kWords) {
    throw std::runtime_error("--vocab: at most " + std::to_string(kWords));
  }
}

uint64_t splitmix64(uint64_t state) {
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

}  // namespace

RandomShape named_shape(const std::string& name) {
  for (const NamedShape& known : kShapes) {
    if (name == known.name) return known.shape;
  }
  throw std::runtime_error("no shape '" + name + "'");
}

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const NamedShape& known : kShapes) names.emplace_back(known.name);
  return names;
}

ShapeFlags::ShapeFlags(CLI::App& app) {
  app.add_option("--shape", name_, "of a model that people know")
      ->check(CLI::IsMember(shape_names()))
      ->capture_default_str();
  const auto size = [&](const char* flag, int& value) {
    app.add_option(flag, value, "in place of the shape's own")->check(CLI::PositiveNumber);
  };
  size("--layers", sizes_.layers);
  size("--hidden", sizes_.hidden);
  size("--ffn", sizes_.ffn);
  size("--heads", sizes_.heads);
  size("--kv-heads", sizes_.kv_heads);
  size("--vocab", sizes_.vocab);
  size("--context", sizes_.context);
}

RandomShape ShapeFlags::shape() const {
  RandomShape shape = named_shape(name_);
  for (int RandomShape::*size :
       {&RandomShape::layers, &RandomShape::hidden, &RandomShape::ffn, &RandomShape::heads,
        &RandomShape::kv_heads, &RandomShape::vocab, &RandomShape::context}) {
    if (sizes_.*size != 0) shape.*size = sizes_.*size;
  }
  check(shape);
  return shape;
}

std::vector<TensorSpec> tensors_of(const RandomShape& shape, Naming naming) {
  const Names& names = naming == Naming::kGguf ? kGguf : kTransformers;
  std::vector<TensorSpec> all;
  const auto add = [&](const std::string& name, int rows, int cols, bool table = false) {
    std::vector<uint64_t> dims = {static_cast<uint64_t>(cols)};
    if (rows > 0) dims.insert(dims.begin(), static_cast<uint64_t>(rows));
    all.push_back({name + ".weight", dims, table});
  };
  const int hidden = shape.hidden, kv = shape.kv_heads * shape.head_dim();
  add(names.embed, shape.vocab, hidden, true);
  for (int i = 0; i < shape.layers; ++i) {
    const std::string layer = names.layer + std::to_string(i) + ".";
    add(layer + names.attn_norm, 0, hidden);
    add(layer + names.q, hidden, hidden);
    add(layer + names.k, kv, hidden);
    add(layer + names.v, kv, hidden);
    add(layer + names.o, hidden, hidden);
    add(layer + names.mlp_norm, 0, hidden);
    add(layer + names.gate, shape.ffn, hidden);
    add(layer + names.up, shape.ffn, hidden);
    add(layer + names.down, hidden, shape.ffn);
  }
  add(names.final_norm, 0, hidden);
  if (!shape.tied) add(names.head, shape.vocab, hidden, true);
  return all;
}

std::string config_text(const RandomShape& shape, const std::string& dtype) {
  const auto field = [](const char* name, int value) {
    return std::string("  \"") + name + "\": " + std::to_string(value) + ",\n";
  };
  return "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n" +
         field("vocab_size", shape.vocab) + field("hidden_size", shape.hidden) +
         field("intermediate_size", shape.ffn) + field("num_hidden_layers", shape.layers) +
         field("num_attention_heads", shape.heads) + field("num_key_value_heads", shape.kv_heads) +
         field("head_dim", shape.head_dim()) + field("max_position_embeddings", shape.context) +
         "  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 10000.0,\n"
         "  \"tie_word_embeddings\": " +
         (shape.tied ? "true" : "false") + ",\n  \"torch_dtype\": \"" + dtype + "\"\n}\n";
}

void random_values(uint64_t seed, uint64_t tensor, uint64_t first, uint64_t count, float* values) {
  const uint64_t state = seed * 1'000'003 + tensor;
  for (uint64_t i = first; i < first + count; ++i) {
    // Four numbers of 16 bits from each draw.
    const uint64_t word = splitmix64(state + (i / 4 + 1) * 0x9E3779B97F4A7C15);
    const auto part = static_cast<int16_t>((word >> (i % 4 * 16)) & 0xFFFF);
    *values++ = static_cast<float>(part) * (0.0346F / 32768);
  }
}

}  // namespace llorch::bench
