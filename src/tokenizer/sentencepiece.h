// Makes a tokenizer of a SentencePiece file alone, as transformers does for a folder without
// tokenizer.json.
#pragma once

#include <string>
#include <string_view>

#include "tokenizer/parts.h"

namespace llorch::tok {

// `config` is the text of tokenizer_config.json, or empty. Its tokenizer_class decides:
// LlamaTokenizer and GemmaTokenizer are as transformers 5 makes them; without a class, or with a
// general one, the file's own normalizer_spec decides as in SentencePiece. Throws
// Error{kCorruptFile} and Error{kUnsupported} naming `file`, or the config beside it.
Parts read_sentencepiece(std::string_view bytes, std::string_view config, const std::string& file);

}  // namespace llorch::tok
