// POST /tokenize and /detokenize: what the model's tokenizer makes of a text, without running the
// model. Knows no sockets and no engine.
#pragma once

#include <string_view>

#include "server/errors.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

// Each takes the body of a request and gives a 200; unknown keys are ignored. Throws BadJson,
// BadField, and what the tokenizer throws.
Reply tokenize(const Tokenizer& tokenizer, std::string_view body);
Reply detokenize(const Tokenizer& tokenizer, std::string_view body);

}  // namespace llorch
