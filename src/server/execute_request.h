// The body of POST /execute: JSON text to a checked request (contract, section 5), without sockets
// and without an engine.
//
// First the types: a body that is no JSON is INVALID_JSON; the first field (in the table's order)
// that is missing or of the wrong type, integers out of their type's range included, is
// INVALID_FIELD and named. Then the values: all faults together. Unknown keys are ignored; of a key
// that comes twice the last one counts.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/errors.h"
#include "server/sampling_fields.h"

namespace llorch {

struct ExecuteRequest : SamplingFields {
  std::string job_id, prompt;
  uint32_t max_tokens = 0;
  std::chrono::milliseconds keepalive{0};  // 0: no comment lines
  bool stream_resume = false;
};

std::variant<ExecuteRequest, Reply> parse_execute(std::string_view body);

// All that was asked for but the job id, as text: the same for bodies that differ in the order of
// their keys, in white space, or in what is ignored.
std::string fingerprint_of(const ExecuteRequest& request);

// The body of POST /cancel: its job id, or INVALID_JSON / INVALID_FIELD.
std::variant<std::string, Reply> parse_cancel(std::string_view body);

// 400 for a prompt of `prompt_tokens` that cannot be run: none at all, or with max_tokens more than
// `context`. None if it fits.
std::optional<Reply> check_length(size_t prompt_tokens, uint32_t max_tokens, int context);

}  // namespace llorch
