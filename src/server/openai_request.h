// The bodies of POST /v1/completions and POST /v1/chat/completions: JSON text to a checked request,
// without sockets and without an engine.
//
// null stands for an absent field. A field of the published API that this worker has not got is
// refused by name, unless its value is one that changes nothing; a field that the API does not have
// is refused as OpenAI refuses it, but for the extensions named in docs/HTTP.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/openai_error.h"
#include "server/sampling_fields.h"
#include "template/chat_template.h"

namespace llorch {

struct OpenAiRequest : SamplingFields {
  std::string model;
  std::variant<std::string, std::vector<int32_t>> prompt;  // of a completion: text or token ids
  // Of a chat: objects with `role` and `content`, a string always, as the template gets them.
  ChatTemplates::Input conversation;
  std::optional<uint32_t> max_tokens;  // none: the rest of the context
  bool echo = false;
  bool stream = false, include_usage = false;
};

std::variant<OpenAiRequest, OpenAiError> parse_completion(std::string_view body);
std::variant<OpenAiRequest, OpenAiError> parse_chat(std::string_view body);

}  // namespace llorch
