// From what a checkpoint has of a tokenizer to one that encodes.
#pragma once

#include "formats/checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

// tokenizer.json, else tokenizer.model; or a GGUF file's metadata. Throws Error{kCorruptFile} or
// Error{kUnsupported} naming file and what in it.
Tokenizer load_tokenizer(const Checkpoint& checkpoint);

}  // namespace llorch
