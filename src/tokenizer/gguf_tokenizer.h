// Makes a tokenizer of a GGUF file's vocabulary: the ids of the tokenizer.json that the file was
// converted from.
#pragma once

#include <string>

#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/parts.h"

namespace llorch::tok {

// Throws Error{kCorruptFile} for what contradicts itself, Error{kUnsupported} for a model or a
// `pre` that is not known; both name `file` and the key.
Parts read_gguf_vocabulary(const GgufVocabulary& vocabulary, const std::string& file);

}  // namespace llorch::tok
