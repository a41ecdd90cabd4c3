// How tokens are drawn, when they end and who goes first, as all paths that generate ask for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llorch {

inline constexpr int32_t kLeastPriority = -100, kMostPriority = 100;

struct SamplingFields {
  float temperature = 1;
  std::optional<uint64_t> seed;  // none: the worker chooses
  float top_p = 1;
  uint32_t top_k = 0;
  float repetition_penalty = 1;
  float min_p = 0;
  std::optional<uint32_t> logprobs;  // none: not wanted
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int32_t priority = 0;
};

}  // namespace llorch
