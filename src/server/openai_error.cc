#include "server/openai_error.h"

#include <algorithm>

#include "server/json_text.h"

namespace llorch {
namespace {

std::string string_or_null(const std::optional<std::string>& text) {
  return text ? json_string(*text) : "null";
}

OpenAiError error_of(Refusal refusal, const std::string& message) {
  const auto error = [&](int status, const char* type, const char* code) {
    OpenAiError e{.status = status, .message = message, .type = type, .param = {}, .code = {}};
    if (code) e.code = code;
    return e;
  };
  constexpr const char* kInvalid = "invalid_request_error";
  switch (refusal) {
    case Refusal::kMalformed:
    case Refusal::kInvalidJson:
    case Refusal::kInvalidField:
      return error(400, kInvalid, nullptr);
    case Refusal::kForbidden:
      return error(403, kInvalid, nullptr);
    case Refusal::kNotFound:
      return error(404, kInvalid, "unknown_url");
    case Refusal::kMethodNotAllowed:
      return error(405, kInvalid, "method_not_supported");
    case Refusal::kRequestTimeout:
      return error(408, kInvalid, "request_timeout");
    case Refusal::kJobConflict:
      return error(409, kInvalid, nullptr);
    case Refusal::kNoChatTemplate:
      return error(400, kInvalid, "chat_template_unusable");
    case Refusal::kPayloadTooLarge:
      return error(413, kInvalid, "request_too_large");
    case Refusal::kUnsupportedMediaType:
      return error(415, kInvalid, "unsupported_content_type");
    case Refusal::kHeadersTooLarge:
      return error(431, kInvalid, nullptr);
    case Refusal::kOverloaded:
      return error(429, "requests", "rate_limit_exceeded");
    case Refusal::kInternal:
      return error(500, "server_error", "internal_error");
    case Refusal::kLoading:
      return error(503, "server_error", "model_loading");
    case Refusal::kUnavailable:
      return error(503, "server_error", "service_unavailable");
  }
  return error(500, "server_error", nullptr);
}

}  // namespace

std::string error_json(const OpenAiError& error) {
  return "{\"error\":{\"message\":" + json_string(error.message) +
         ",\"type\":" + json_string(error.type) + ",\"param\":" + string_or_null(error.param) +
         ",\"code\":" + string_or_null(error.code) + "}}";
}

Reply refuse(const OpenAiError& error) {
  Reply reply;
  reply.status = error.status;
  reply.body = error_json(error);
  return reply;
}

bool is_openai_path(std::string_view path) { return path == "/v1" || path.starts_with("/v1/"); }

Reply in_openai_form(const Reply& reply) {
  if (!reply.refusal) return reply;
  const OpenAiError error = error_of(*reply.refusal, reply.message);
  Reply same = reply;
  same.status = error.status;
  same.body = error_json(error);
  return same;
}

OpenAiError error_of(const FailedEvent& event) {
  OpenAiError error;
  error.message = event.message;
  error.type = "server_error";
  error.status = !event.retriable                                     ? 400
                 : std::string_view(event.code) == "INFERENCE_FAILED" ? 500
                                                                      : 503;
  std::string code = event.code;
  std::transform(code.begin(), code.end(), code.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  error.code = code;
  return error;
}

}  // namespace llorch
