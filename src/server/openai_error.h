// OpenAI's error envelope, and the contract's refusals said in it. Knows no sockets.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/request.h"
#include "server/errors.h"

namespace llorch {

struct OpenAiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::optional<std::string> param, code;
};

// {"error":{"message","type","param","code"}}
std::string error_json(const OpenAiError& error);
Reply refuse(const OpenAiError& error);

// True for the paths that speak OpenAI's language: /v1 and all below it.
bool is_openai_path(std::string_view path);
// A refusal of the server itself (no such path, loading, queue full ...) in OpenAI's envelope. What
// is none, or is in that form already, comes back as it is.
Reply in_openai_form(const Reply& reply);

// What a request that failed after it was accepted is told.
OpenAiError error_of(const FailedEvent& event);

}  // namespace llorch
