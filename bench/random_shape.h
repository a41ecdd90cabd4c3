// The llama that benchmarks make of random weights: what tensors it has, and its config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace llorch::bench {

struct RandomShape {
  int layers = 22, hidden = 2048, ffn = 5632, heads = 32, kv_heads = 4, vocab = 32000,
      context = 32768;
  bool tied = false;  // the head is the embedding

  int head_dim() const { return hidden / heads; }
};

// Those with names: "tinyllama-1.1b", which is the default, "llama-3.2-1b", "llama-3.1-8b".
RandomShape named_shape(const std::string& name);  // throws std::runtime_error
std::vector<std::string> shape_names();

// --shape and a flag for each size, which count for more than it.
class ShapeFlags {
 public:
  explicit ShapeFlags(CLI::App& app);
  // What the parsed flags ask for. Throws std::runtime_error if there can be no such model.
  RandomShape shape() const;

 private:
  std::string name_ = "tinyllama-1.1b";
  RandomShape sizes_{0, 0, 0, 0, 0, 0, 0};  // 0: as the named shape has it
};

// One-dimensional ones are norms: f32 ones in a GGUF file, as llama.cpp wants them, and all ones.
struct TensorSpec {
  std::string name;
  std::vector<uint64_t> dims;  // outermost first
  bool table = false;          // embedding or head

  bool norm() const { return dims.size() == 1; }
  uint64_t count() const {
    uint64_t n = 1;
    for (const uint64_t dim : dims) n *= dim;
    return n;
  }
};

// In the order of a file, under the names that folders or GGUF files have.
enum class Naming : uint8_t { kTransformers, kGguf };
std::vector<TensorSpec> tensors_of(const RandomShape& shape, Naming naming);

// `dtype` as it is told there: "bfloat16".
std::string config_text(const RandomShape& shape, const std::string& dtype);

// What elements `first` up to first + count of a tensor are: uniform with the usual deviation of
// 0.02, the same for the same seed and index of a tensor, in whatever pieces they are asked for.
void random_values(uint64_t seed, uint64_t tensor, uint64_t first, uint64_t count, float* values);

}  // namespace llorch::bench
