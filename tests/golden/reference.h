// What transformers computed with the checkpoints of tests/golden/data: tools/make_goldens.py's
// files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llorch {

struct GoldenReference {
  explicit GoldenReference(const std::string& golden);

  std::vector<int32_t> prompt, greedy;
  std::vector<float> logits;    // [prompt, V]
  std::vector<float> logprobs;  // [greedy]
  // Of transformers in that type, in parts of a row's max - min: root mean square of the median row
  // and of all rows, and the mean of the rows' maxima.
  std::vector<float> bf16_error, f16_error;
};

std::string golden_folder(const std::string& golden);
std::vector<std::string> golden_names();  // sorted; none if the folder is lost

}  // namespace llorch
