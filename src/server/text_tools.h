// POST /tokenize, /detokenize and /apply-template: what the model's tokenizer and chat template
// make of a text, without running the model. Knows no sockets and no engine.
#pragma once

#include <string_view>

#include "server/errors.h"
#include "template/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

// Each takes the body of a request and gives a 200; unknown keys are ignored. Throws BadJson,
// BadField, and what the tokenizer throws.
Reply tokenize(const Tokenizer& tokenizer, std::string_view body);
Reply detokenize(const Tokenizer& tokenizer, std::string_view body);
// A template that cannot be used is a 409, what it throws a 400 in the form of a broken rule.
Reply apply_template(const ChatTemplates& templates, std::string_view body);

}  // namespace llorch
