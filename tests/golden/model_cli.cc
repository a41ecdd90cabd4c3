// Computes for tools/family_diff.py, which compares the answers with another implementation. Part
// of the tests.
//
//   model_cli CHECKPOINT f32|bf16|f16 COUNT < prompt > answer
//
// All numbers are 32-bit little-endian. The prompt is its ids. The answer: the logits of each of
// its rows, then the COUNT tokens that follow at temperature 0, then their logprobs.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "model/open_model.h"
#include "run.h"
#include "tokenizer/tokenizer.h"

namespace llorch {
namespace {

template <class T>
void write(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

void run(const std::string& folder, const std::string& type, int32_t count) {
  std::vector<int32_t> prompt;
  for (int32_t id = 0; std::fread(&id, sizeof id, 1, stdin) == 1;) prompt.push_back(id);
  const DType dtype = type == "f32" ? DType::kF32 : type == "f16" ? DType::kF16 : DType::kBF16;
  const Checkpoint checkpoint = open_model(folder);
  Backend backend{BackendOptions{}};
  const Model model = Model::load(checkpoint, backend, {.dtype = dtype});
  const Tokenizer tokenizer = byte_tokenizer();
  for (const auto& row : prompt_logits(backend, model, dtype, prompt)) write(row);
  const Answer answer = greedy_answers(backend, model, tokenizer, dtype, prompt, count, {})[0];
  write(answer.tokens);
  write(answer.logprobs);
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: model_cli CHECKPOINT f32|bf16|f16 COUNT < prompt > answer\n";
    return 2;
  }
  try {
    llorch::run(argv[1], argv[2], std::stoi(argv[3]));
  } catch (const std::exception& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
  return 0;
}
