// The values of tokenizer.ggml.pre: how byte-level models cut text into words. Knows nothing of
// vocabularies.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/pre_tokenizer.h"

namespace llorch::tok {

struct GgufPre {
  std::vector<PreTokenizer> steps;
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;  // where the file is silent
};

// None for a name that is not known.
std::optional<GgufPre> gguf_pre(std::string_view name);

}  // namespace llorch::tok
