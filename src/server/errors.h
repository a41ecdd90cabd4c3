// What a client is told when its request is not done: one table of codes, and the two body shapes
// of the contract. Knows no sockets.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch {

enum class Refusal {
  kMalformed,  // not HTTP
  kInvalidJson,
  kInvalidField,
  kForbidden,
  kNotFound,
  kMethodNotAllowed,
  kRequestTimeout,
  kJobConflict,
  kNoChatTemplate,
  kPayloadTooLarge,
  kUnsupportedMediaType,
  kHeadersTooLarge,
  kOverloaded,
  kInternal,
  kLoading,
  kUnavailable,
};

// An HTTP answer that is there as a whole.
struct Reply {
  int status = 200;
  std::string body;
  const char* content_type = "application/json";
  std::string allow;  // methods, for 405 and OPTIONS
  int retry_after_s = 0;
  bool close = false;  // the connection ends with this answer
  // Of a refusal, for those who say it in another form.
  std::optional<Refusal> refusal;
  std::string message;
};

// {"code","message","retriable"}. OVERLOADED, LOADING and UNAVAILABLE carry Retry-After.
Reply refuse(Refusal code, std::string_view message);

Reply out_of_memory();  // UNAVAILABLE

// One broken rule of a field.
struct FieldError {
  std::string field, constraint, message;
  std::optional<std::string> value;
};
// 400 {"errors":[{"field","constraint","message","value"?}]}.
Reply refuse(const std::vector<FieldError>& errors);

// The body cannot be read: "the body is not valid JSON; byte 7".
struct BadJson {
  std::string message;
};
// One field is missing, of the wrong type, or not what it may be: `field` "must be a string". An
// empty `field` is the body as a whole.
struct BadField {
  std::string field, what;
  std::string message() const { return field.empty() ? what : "`" + field + "` " + what; }
};

// INVALID_JSON and INVALID_FIELD.
Reply refuse(const BadJson& bad);
Reply refuse(const BadField& bad);

}  // namespace llorch
