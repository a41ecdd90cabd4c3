// What the worker needs of tokenizer_config.json, the file beside tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace llorch {

// The id of its `eos_token` (a string, or an object with `content`). None if the text is empty or
// names none that the tokenizer knows. Throws Error{kCorruptFile} naming `file`.
std::optional<int32_t> eos_token_id(std::string_view tokenizer_config, const Tokenizer& tokenizer,
                                    const std::string& file);

}  // namespace llorch
