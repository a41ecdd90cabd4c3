// What the metadata of a GGUF file says of its tokenizer: the keys tokenizer.ggml.* as they stand
// there. Knows nothing of the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch {

// The views live as long as what they were made from; a tokenizer keeps none of them.
struct GgufVocabulary {
  std::string model;         // llama, gpt2, ...
  std::string pre;           // how gpt2 models cut text; may be empty
  std::string architecture;  // general.architecture
  std::vector<std::string_view> tokens;
  std::vector<float> scores;             // one for each token, or none
  std::vector<int32_t> types;            // one for each token, or none
  std::vector<std::string_view> merges;  // "left right"
  std::optional<int32_t> bos, eos, unk;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

}  // namespace llorch
