// A model on a backend, driven without a worker around it: the logits of a prompt, and an answer of
// the engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/model.h"
#include "ops/backend.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

// The logits of every row of `prompt`, computed in steps of so many tokens (all at once if none is
// given), with block tables out of order.
std::vector<std::vector<float>> prompt_logits(Backend& backend, const Model& model, DType kv_type,
                                              const std::vector<int32_t>& prompt,
                                              const std::vector<int32_t>& steps = {});

// Bytes, whatever the model's own vocabulary is: the engine's texts are not looked at.
Tokenizer byte_tokenizer();

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};

struct Load {
  int requests = 1;      // with the same prompt at once
  int step_tokens = 40;  // prompts are cut to it
  double contexts = 0;   // kv for so many of them at their full length; 0: for all
};

// Greedy answers of `count` tokens, no EOS asked. Throws what a failed request says.
// `preemptions` (may be null) becomes how often one had to wait after it had begun.
std::vector<Answer> greedy_answers(Backend& backend, const Model& model, const Tokenizer& tokenizer,
                                   DType kv_type, const std::vector<int32_t>& prompt, int32_t count,
                                   const Load& load, uint64_t* preemptions = nullptr);

}  // namespace llorch
