// Bytes as a GGUF file's vocabulary: the first picks model and cut, the second the flags; lines
// follow, each a letter for what it is and its text. Read, or refused by an Error; what was read
// encodes and decodes, and stays in range.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "encode_in_range.h"
#include "tokenizer/tokenizer.h"

namespace {

using llorch::GgufVocabulary;
using llorch::Tokenizer;

constexpr std::string_view kPres[] = {"gpt-2", "llama-bpe", "qwen2", "smollm", "tekken", "default"};

GgufVocabulary vocabulary_of(std::string_view bytes) {
  GgufVocabulary made;
  const auto first = static_cast<unsigned char>(bytes[0]);
  const auto flags = static_cast<unsigned char>(bytes[1]);
  made.model = first % 2 == 0 ? "llama" : "gpt2";
  made.pre = kPres[first / 2 % std::size(kPres)];
  made.architecture = (flags & 1) != 0 ? "phi3" : "llama";
  made.add_bos = (flags & 2) != 0;
  made.add_eos = (flags & 4) != 0;
  if ((flags & 8) != 0) made.add_space_prefix = (flags & 16) != 0;
  made.bos = flags >> 5;
  made.eos = made.unk = flags >> 6;
  for (bytes.remove_prefix(2); !bytes.empty();) {
    const std::string_view line = bytes.substr(0, bytes.find('\n'));
    bytes.remove_prefix(std::min(bytes.size(), line.size() + 1));
    if (line.empty()) continue;
    const std::string_view text = line.substr(1);
    if (line[0] == 'm') {
      made.merges.push_back(text);
      continue;
    }
    made.tokens.push_back(text);
    made.types.push_back(line[0] - 'a');
    made.scores.push_back(static_cast<float>(text.size() % 5) - static_cast<float>(line[0]));
  }
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  try {
    const Tokenizer tokenizer = Tokenizer::from_gguf(
        vocabulary_of({reinterpret_cast<const char*>(data), size}), "model.gguf");
    for (const std::string_view text :
         {"Hello  \xC3\xB6 ab aab\n<s><tool>x", " ab \xE4\xBD\xA0\xFF<|end|> </s>  12"}) {
      llorch::encode_and_decode(tokenizer, text);
    }
  } catch (const llorch::Error&) {
  }
  return 0;
}
