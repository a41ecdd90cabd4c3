// The first byte picks a tokenizer_config.json, the rest is a tokenizer.model: read, or refused by
// an Error; what was read encodes and decodes, and stays in range.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "encode_in_range.h"
#include "tokenizer/tokenizer.h"

namespace {

using llorch::Tokenizer;

constexpr std::string_view kConfigs[] = {
    "",
    R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "legacy": true})",
    R"({"tokenizer_class": "GemmaTokenizer", "add_bos_token": true, "add_eos_token": true})",
    R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "pad_token": "<pad>",
        "eos_token": {"content": "</s>", "lstrip": true}, "additional_special_tokens": ["<a>"],
        "added_tokens_decoder": {"3": {"content": "<r>", "rstrip": true, "special": true},
                                 "99": {"content": "ab", "normalized": true}}})",
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view config = kConfigs[data[0] % std::size(kConfigs)];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const Tokenizer tokenizer = Tokenizer::from_sentencepiece(bytes, config, "tokenizer.model");
    for (const std::string_view text :
         {"Hello  \xC3\xB6 ab aab\n<s><tool>x", " ab \xE4\xBD\xA0\xFF<r> </s>  "}) {
      llorch::encode_and_decode(tokenizer, text);
    }
  } catch (const llorch::Error&) {
  }
  return 0;
}
