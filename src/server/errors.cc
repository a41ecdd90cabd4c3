#include "server/errors.h"

#include "base/error.h"
#include "server/json_text.h"

namespace llorch {
namespace {

struct Row {
  Refusal code;
  const char* name;
  int status;
  bool retriable;
  int retry_after_s;
};
constexpr Row kRows[] = {
    {Refusal::kMalformed, "MALFORMED_REQUEST", 400, false, 0},
    {Refusal::kInvalidJson, "INVALID_JSON", 400, false, 0},
    {Refusal::kInvalidField, "INVALID_FIELD", 422, false, 0},
    {Refusal::kForbidden, "FORBIDDEN", 403, false, 0},
    {Refusal::kNotFound, "NOT_FOUND", 404, false, 0},
    {Refusal::kMethodNotAllowed, "METHOD_NOT_ALLOWED", 405, false, 0},
    {Refusal::kRequestTimeout, "REQUEST_TIMEOUT", 408, true, 0},
    {Refusal::kJobConflict, "JOB_CONFLICT", 409, false, 0},
    {Refusal::kNoChatTemplate, "NO_CHAT_TEMPLATE", 409, false, 0},
    {Refusal::kPayloadTooLarge, "PAYLOAD_TOO_LARGE", 413, false, 0},
    {Refusal::kUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", 415, false, 0},
    {Refusal::kHeadersTooLarge, "HEADERS_TOO_LARGE", 431, false, 0},
    {Refusal::kOverloaded, "OVERLOADED", 429, true, 1},
    {Refusal::kInternal, "INTERNAL", 500, true, 0},
    {Refusal::kLoading, "LOADING", 503, true, 1},
    {Refusal::kUnavailable, "UNAVAILABLE", 503, true, 5},
};

const Row& row(Refusal code) {
  const Row& found = kRows[static_cast<size_t>(code)];
  CHECK(found.code == code);
  return found;
}

}  // namespace

Reply refuse(Refusal code, std::string_view message) {
  const Row& r = row(code);
  Reply reply;
  reply.status = r.status;
  reply.retry_after_s = r.retry_after_s;
  reply.refusal = code;
  reply.message = message;
  reply.body = std::string("{\"code\":\"") + r.name + "\",\"message\":" + json_string(message) +
               ",\"retriable\":" + (r.retriable ? "true" : "false") + "}";
  return reply;
}

Reply out_of_memory() {
  Reply reply = refuse(Refusal::kUnavailable, "out of memory");
  reply.close = true;
  return reply;
}

Reply refuse(const std::vector<FieldError>& errors) {
  Reply reply;
  reply.status = 400;
  reply.body = "{\"errors\":[";
  for (const FieldError& e : errors) {
    if (reply.body.back() != '[') reply.body += ',';
    reply.body += "{\"field\":" + json_string(e.field) +
                  ",\"constraint\":" + json_string(e.constraint) +
                  ",\"message\":" + json_string(e.message);
    if (e.value) reply.body += ",\"value\":" + json_string(*e.value);
    reply.body += '}';
  }
  reply.body += "]}";
  return reply;
}

Reply refuse(const BadJson& bad) { return refuse(Refusal::kInvalidJson, bad.message); }
Reply refuse(const BadField& bad) { return refuse(Refusal::kInvalidField, bad.message()); }

}  // namespace llorch
