// Writes a llama of random weights, for benchmarks: speed and memory do not depend on what it says.
//
//   random_model build/models/1b                       a folder: config.json, tokenizer.json,
//   weights random_model build/models/1b.gguf                  one GGUF file, which llama.cpp
//   serves too random_model build/models/8b --shape llama-3.1-8b
//
// The default shape is TinyLlama-1.1B's. Every token's text is one character of its own
// (load/words.h). The same arguments give the same bytes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "load/words.h"
#include "random_shape.h"

namespace llorch::bench {
namespace {

struct Shape : RandomShape {
  std::string dtype = "bf16";
  uint64_t seed = 1;
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

  // As many pieces at a time as there are threads to make them, so that the memory does not grow
  // with the tensor. `seed` null: all ones.
  void tensor(uint64_t index, uint64_t count, size_t element_bytes, const uint64_t* seed) {
    constexpr uint64_t kPiece = 1 << 20;
    const uint64_t threads = std::max(1U, std::thread::hardware_concurrency());
    std::vector<std::future<std::string>> pieces;
    for (uint64_t done = 0; done < count;) {
      for (; pieces.size() < threads && done < count; done += kPiece) {
        const uint64_t here = std::min(kPiece, count - done);
        pieces.push_back(std::async(here < kPiece ? std::launch::deferred : std::launch::async,
                                    piece, index, done, here, element_bytes, seed));
      }
      for (auto& made : pieces) bytes(made.get());
      pieces.clear();
    }
  }
  void close() {
    file_.close();
    if (!file_) throw std::runtime_error(path_ + ": could not be written");
  }

 private:
  static std::string piece(uint64_t index, uint64_t first, uint64_t count, size_t element_bytes,
                           const uint64_t* seed) {
    std::vector<float> values(count, 1.0F);
    if (seed) random_values(*seed, index, first, count, values.data());
    std::string data(count * element_bytes, '\0');
    // bf16 is the upper half of f32.
    for (uint64_t i = 0; i < count; ++i) {
      std::memcpy(&data[i * element_bytes],
                  reinterpret_cast<const char*>(&values[i]) + 4 - element_bytes, element_bytes);
    }
    return data;
  }

  std::string path_;
  std::ofstream file_;
  uint64_t size_ = 0;
};

void write_safetensors(const Shape& shape, const std::string& path) {
  const bool f32 = shape.dtype == "f32";
  const size_t element = f32 ? 4 : 2;
  const std::vector<TensorSpec> all = tensors_of(shape, Naming::kTransformers);
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
    out.tensor(i, all[i].count(), element, all[i].norm() ? nullptr : &shape.seed);
  }
  out.close();
}

void write_config(const Shape& shape, const std::string& path) {
  Output out(path);
  out.bytes(config_text(shape, shape.dtype == "f32" ? "float32" : "bfloat16"));
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
  const std::vector<TensorSpec> all = tensors_of(shape, Naming::kGguf);
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
    const bool norm = all[i].norm();
    out.tensor(i, all[i].count(), f32 || norm ? 4 : 2, norm ? nullptr : &shape.seed);
  }
  out.align(kAlignment);
  out.close();
}

int run(int argc, char** argv) {
  Shape shape;
  std::string path;
  CLI::App app("Writes a llama of random weights; every token's text is one character");
  app.option_defaults()->always_capture_default();
  app.add_option("path", path, "a folder to make, or a file if it ends in .gguf")->required();
  const ShapeFlags sizes(app);
  app.add_option("--dtype", shape.dtype)->check(CLI::IsMember({"bf16", "f32"}));
  app.add_option("--seed", shape.seed);
  CLI11_PARSE(app, argc, argv);
  static_cast<RandomShape&>(shape) = sizes.shape();

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
