// The member "model" of a tokenizer.json. For .cc files of this folder only: it brings nlohmann's
// header with it.
#pragma once

#include "tokenizer/json_document.h"
#include "tokenizer/json_node.h"
#include "tokenizer/parts.h"

namespace llorch::tok {

// Throws Error{kCorruptFile} where it is damaged or contradicts itself, Error{kUnsupported} that
// names what this reader has not got.
Model read_model(const JsonNode& node, const TokenizerDocument& document);

}  // namespace llorch::tok
