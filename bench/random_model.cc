// Writes a llama of random weights, for benchmarks: speed and memory do not depend on what it says.
//
//   random_model build/models/1b               a folder with config.json, tokenizer.json, weights
//   random_model build/models/1b.gguf          one GGUF file, which llama.cpp serves too
//
// The default shape is TinyLlama-1.1B's. Every token's text is one character of its own
// (load/words.h). The same arguments give the same bytes.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "load/words.h"

namespace llorch::bench {
namespace {

struct Shape {
  int layers = 22, hidden = 2048, ffn = 5632, heads = 32, kv_heads = 4, vocab = 32000,
      context = 32768;
  std::string dtype = "bf16";
  uint64_t seed = 1;

  int head_dim() const { return hidden / heads; }
};

// One-dimensional ones are norms: f32 ones in a GGUF file, as llama.cpp wants them, and all ones.
struct TensorSpec {
  std::string name;
  std::vector<uint64_t> dims;  // outermost first

  bool norm() const { return dims.size() == 1; }
  uint64_t count() const {
    uint64_t n = 1;
    for (const uint64_t dim : dims) n *= dim;
    return n;
  }
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

std::vector<TensorSpec> tensors(const Shape& shape, const Names& names) {
  std::vector<TensorSpec> all;
  const auto add = [&](const std::string& name, int rows, int cols) {
    std::vector<uint64_t> dims = {static_cast<uint64_t>(cols)};
    if (rows > 0) dims.insert(dims.begin(), static_cast<uint64_t>(rows));
    all.push_back({name + ".weight", dims});
  };
  const int hidden = shape.hidden, kv = shape.kv_heads * shape.head_dim();
  add(names.embed, shape.vocab, hidden);
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
  add(names.head, shape.vocab, hidden);
  return all;
}

// Numbers of a tensor, made as they are written: uniform with the usual deviation of 0.02.
class Numbers {
 public:
  Numbers(uint64_t seed, uint64_t tensor) : state_(seed * 1'000'003 + tensor) {}

  float next() {
    if (left_ == 0) {
      word_ = draw();
      left_ = 4;
    }
    const auto part = static_cast<int16_t>(word_ & 0xFFFF);
    word_ >>= 16;
    --left_;
    return static_cast<float>(part) * (0.0346F / 32768);
  }

 private:
  uint64_t draw() {  // splitmix64
    uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }

  uint64_t state_, word_ = 0;
  int left_ = 0;
};

class Output {
 public:
  explicit Output(const std::string& path) : path_(path), file_(path, std::ios::binary) {}

  void bytes(const std::string& data) {
    file_.write(data.data(), static_cast<std::streamsize>(data.size()));
    size_ += data.size();
  }
  template <class T>
  void number(T value) {
    std::string data(sizeof value, '\0');
    std::memcpy(data.data(), &value, sizeof value);
    bytes(data);
  }
  void align(uint64_t to) { bytes(std::string((to - size_ % to) % to, '\0')); }

  // A piece at a time, so that the memory does not grow with the tensor.
  void tensor(uint64_t count, size_t element_bytes, Numbers* numbers) {
    constexpr uint64_t kPiece = 1 << 18;
    std::string piece;
    for (uint64_t done = 0; done < count; done += kPiece) {
      const uint64_t here = std::min(kPiece, count - done);
      piece.resize(here * element_bytes);
      for (uint64_t i = 0; i < here; ++i) {
        const float value = numbers ? numbers->next() : 1.0F;
        char bits[4];
        std::memcpy(bits, &value, 4);
        // bf16 is the upper half of f32.
        std::memcpy(&piece[i * element_bytes], bits + 4 - element_bytes, element_bytes);
      }
      bytes(piece);
    }
  }
  void close() {
    file_.close();
    if (!file_) throw std::runtime_error(path_ + ": could not be written");
  }

 private:
  std::string path_;
  std::ofstream file_;
  uint64_t size_ = 0;
};

void write_safetensors(const Shape& shape, const std::string& path) {
  const bool f32 = shape.dtype == "f32";
  const size_t element = f32 ? 4 : 2;
  const std::vector<TensorSpec> all = tensors(shape, kTransformers);
  std::string header = "{";
  uint64_t offset = 0;
  for (const TensorSpec& t : all) {
    std::string dims;
    for (const uint64_t dim : t.dims) dims += (dims.empty() ? "" : ",") + std::to_string(dim);
    const uint64_t end = offset + t.count() * element;
    header += (header.size() > 1 ? ",\"" : "\"") + t.name + R"(":{"dtype":")" +
              (f32 ? "F32" : "BF16") + R"(","shape":[)" + dims + R"(],"data_offsets":[)" +
              std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  Output out(path);
  out.number<uint64_t>(header.size());
  out.bytes(header);
  for (size_t i = 0; i < all.size(); ++i) {
    Numbers numbers(shape.seed, i);
    out.tensor(all[i].count(), element, all[i].norm() ? nullptr : &numbers);
  }
  out.close();
}

void write_config(const Shape& shape, const std::string& path) {
  const auto field = [](const char* name, int value) {
    return std::string("  \"") + name + "\": " + std::to_string(value) + ",\n";
  };
  Output out(path);
  out.bytes("{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n" +
            field("vocab_size", shape.vocab) + field("hidden_size", shape.hidden) +
            field("intermediate_size", shape.ffn) + field("num_hidden_layers", shape.layers) +
            field("num_attention_heads", shape.heads) +
            field("num_key_value_heads", shape.kv_heads) + field("head_dim", shape.head_dim()) +
            field("max_position_embeddings", shape.context) +
            "  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 10000.0,\n"
            "  \"tie_word_embeddings\": false,\n  \"torch_dtype\": \"" +
            (shape.dtype == "f32" ? "float32" : "bfloat16") + "\"\n}\n");
  out.close();
}

// A character that is no word becomes word 0, so that any text is a prompt.
void write_tokenizer(const Shape& shape, const std::string& path) {
  std::string words;
  for (int id = 0; id < shape.vocab; ++id) {
    words += (id == 0 ? "\"" : ",\"") + word(id) + "\":" + std::to_string(id);
  }
  Output out(path);
  out.bytes(R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],)"
            R"("normalizer":null,"pre_tokenizer":null,"post_processor":null,)"
            R"("decoder":{"type":"Fuse"},"model":{"type":"BPE","dropout":null,"unk_token":")" +
            word(0) +
            R"(","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,)"
            R"("byte_fallback":false,"ignore_merges":false,"vocab":{)" +
            words + R"(},"merges":[]}})" + "\n");
  out.close();
}

// GGUF version 3. Type numbers are the format's own.
class GgufKeys {
 public:
  void text(const std::string& key, const std::string& value) {
    begin(key, 8);
    string(value);
  }
  void integer(const std::string& key, int value) {
    begin(key, 4);
    raw(static_cast<uint32_t>(value));
  }
  void real(const std::string& key, float value) {
    begin(key, 6);
    raw(value);
  }
  void boolean(const std::string& key, bool value) {
    begin(key, 7);
    raw(static_cast<uint8_t>(value));
  }
  void array(const std::string& key, uint32_t type, int count) {
    begin(key, 9);
    raw(type);
    raw(static_cast<uint64_t>(count));
  }
  void string(const std::string& value) {
    raw(static_cast<uint64_t>(value.size()));
    data_ += value;
  }
  template <class T>
  void raw(T value) {
    data_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  const std::string& data() const { return data_; }
  uint64_t count() const { return count_; }

 private:
  void begin(const std::string& key, uint32_t type) {
    string(key);
    raw(type);
    ++count_;
  }
  std::string data_;
  uint64_t count_ = 0;
};

GgufKeys gguf_keys(const Shape& shape) {
  GgufKeys keys;
  keys.text("general.architecture", "llama");
  keys.text("general.name", "random");
  keys.integer("llama.block_count", shape.layers);
  keys.integer("llama.context_length", shape.context);
  keys.integer("llama.embedding_length", shape.hidden);
  keys.integer("llama.feed_forward_length", shape.ffn);
  keys.integer("llama.attention.head_count", shape.heads);
  keys.integer("llama.attention.head_count_kv", shape.kv_heads);
  keys.real("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  keys.integer("llama.rope.dimension_count", shape.head_dim());
  keys.real("llama.rope.freq_base", 10000.0F);
  keys.text("tokenizer.ggml.model", "llama");
  keys.array("tokenizer.ggml.tokens", 8, shape.vocab);
  for (int id = 0; id < shape.vocab; ++id) keys.string(word(id));
  keys.array("tokenizer.ggml.scores", 6, shape.vocab);
  for (int id = 0; id < shape.vocab; ++id) keys.raw(0.0F);
  keys.array("tokenizer.ggml.token_type", 5, shape.vocab);
  for (int id = 0; id < shape.vocab; ++id) keys.raw(int32_t{id == 0 ? 2 : 1});  // unknown, normal
  keys.integer("tokenizer.ggml.unknown_token_id", 0);
  keys.boolean("tokenizer.ggml.add_bos_token", false);
  keys.boolean("tokenizer.ggml.add_eos_token", false);
  keys.boolean("tokenizer.ggml.add_space_prefix", false);
  return keys;
}

void write_gguf(const Shape& shape, const std::string& path) {
  constexpr uint32_t kF32 = 0, kBf16 = 30;
  constexpr uint64_t kAlignment = 32;
  const bool f32 = shape.dtype == "f32";
  const std::vector<TensorSpec> all = tensors(shape, kGguf);
  const GgufKeys keys = gguf_keys(shape);
  GgufKeys infos;
  uint64_t offset = 0;
  for (const TensorSpec& t : all) {
    infos.string(t.name);
    infos.raw(static_cast<uint32_t>(t.dims.size()));
    for (auto dim = t.dims.rbegin(); dim != t.dims.rend(); ++dim) infos.raw(*dim);
    infos.raw(f32 || t.norm() ? kF32 : kBf16);
    infos.raw(offset);
    const uint64_t size = t.count() * (f32 || t.norm() ? 4 : 2);
    offset += (size + kAlignment - 1) / kAlignment * kAlignment;
  }
  Output out(path);
  out.bytes("GGUF");
  out.number<uint32_t>(3);
  out.number<uint64_t>(all.size());
  out.number<uint64_t>(keys.count());
  out.bytes(keys.data());
  out.bytes(infos.data());
  for (size_t i = 0; i < all.size(); ++i) {
    out.align(kAlignment);
    Numbers numbers(shape.seed, i);
    out.tensor(all[i].count(), f32 || all[i].norm() ? 4 : 2, all[i].norm() ? nullptr : &numbers);
  }
  out.align(kAlignment);
  out.close();
}

void check(const Shape& shape) {
  if (shape.hidden % shape.heads != 0 || shape.heads % shape.kv_heads != 0) {
    throw std::runtime_error("the heads must divide hidden, and the kv heads the heads");
  }
  if (shape.vocab > kWords) {
    throw std::runtime_error("--vocab: at most " + std::to_string(kWords));
  }
}

int run(int argc, char** argv) {
  Shape shape;
  std::string path;
  CLI::App app("Writes a llama of random weights; every token's text is one character");
  app.option_defaults()->always_capture_default();
  app.add_option("path", path, "a folder to make, or a file if it ends in .gguf")->required();
  const auto size = [&](const char* flag, int& value) {
    app.add_option(flag, value)->check(CLI::PositiveNumber);
  };
  size("--layers", shape.layers);
  size("--hidden", shape.hidden);
  size("--ffn", shape.ffn);
  size("--heads", shape.heads);
  size("--kv-heads", shape.kv_heads);
  size("--vocab", shape.vocab);
  size("--context", shape.context);
  app.add_option("--dtype", shape.dtype)->check(CLI::IsMember({"bf16", "f32"}));
  app.add_option("--seed", shape.seed);
  CLI11_PARSE(app, argc, argv);
  check(shape);

  const std::filesystem::path place(path);
  if (place.extension() == ".gguf") {
    if (place.has_parent_path()) std::filesystem::create_directories(place.parent_path());
    write_gguf(shape, path);
    return 0;
  }
  std::filesystem::create_directories(place);
  write_config(shape, place / "config.json");
  write_tokenizer(shape, place / "tokenizer.json");
  write_safetensors(shape, place / "model.safetensors");
  return 0;
}

}  // namespace
}  // namespace llorch::bench

int main(int argc, char** argv) {
  try {
    return llorch::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
