// Reads a tokenizer.json. Knows nothing of encoding.
#pragma once

#include <string>
#include <string_view>

#include "tokenizer/parts.h"

namespace llorch::tok {

// Throws Error{kCorruptFile} or Error{kUnsupported}, "file: model.merges[17]: reason".
Parts read_tokenizer_json(std::string_view text, const std::string& file);

}  // namespace llorch::tok
