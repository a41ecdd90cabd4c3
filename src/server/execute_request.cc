#include "server/execute_request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "server/json_fields.h"
#include "server/json_text.h"

namespace llorch {
namespace {

constexpr size_t kMaxPromptCharacters = 32768, kMaxStop = 4, kMaxStopBytes = 100;
// A 2 MiB body can break the rules of `stop` half a million times; the answer stays smaller than
// that.
constexpr size_t kMaxStopReported = 4096;
constexpr uint32_t kMaxTokens = 2048, kMaxLogprobs = 20;

size_t count_characters(std::string_view utf8) {
  return static_cast<size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

struct Range {
  float least, most;
  const char *least_text, *most_text;
};
constexpr Range kZeroToOne{0, 1, "0.0", "1.0"}, kZeroToTwo{0, 2, "0.0", "2.0"},
    kKeepalive{0.01F, 3600, "0.01", "3600.0"};

// Collects the broken rules, in the order in which they are asked.
class Faults {
 public:
  void add(FieldError error) { errors_.push_back(std::move(error)); }
  void range(const char* field, float value, const Range& range) {
    const bool low = value < range.least;
    if (!low && value <= range.most) return;
    const std::string got = plain_number(value);
    add({field, std::string("range(") + range.least_text + "..=" + range.most_text + ")",
         std::string(field) + (low ? " must be at least " : " must be at most ") +
             (low ? range.least_text : range.most_text) + " (got " + got + ")",
         got});
  }
  void integer(const char* field, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    const std::string got = std::to_string(value), low = std::to_string(least),
                      high = std::to_string(most);
    add({field, "range(" + low + "..=" + high + ")",
         std::string(field) +
             (value < least ? " must be at least " + low : " must be at most " + high) + " (got " +
             got + ")",
         got});
  }
  const std::vector<FieldError>& all() const { return errors_; }

 private:
  std::vector<FieldError> errors_;
};

void check_prompt(const std::string& prompt, Faults& faults) {
  const char* const constraint = "length(1..=32768)";
  if (prompt.empty()) {
    faults.add({"prompt", constraint, "prompt must not be empty", std::nullopt});
    return;
  }
  const size_t characters = count_characters(prompt);
  if (characters > kMaxPromptCharacters) {
    faults.add({"prompt", constraint,
                "prompt must be at most 32768 characters (got " + std::to_string(characters) + ")",
                std::nullopt});
  }
}

void check_stop(const std::vector<std::string>& stop, Faults& faults) {
  if (stop.size() > kMaxStop) {
    const std::string got = std::to_string(stop.size());
    faults.add(
        {"stop", "max_count(4)", "stop must have at most 4 sequences (got " + got + ")", got});
  }
  for (size_t i = 0; i < std::min(stop.size(), kMaxStopReported); ++i) {
    const std::string index = std::to_string(i), field = "stop[" + index + "]";
    if (stop[i].empty()) {
      faults.add(
          {field, "non_empty", "stop sequence " + index + " must not be empty", std::nullopt});
    } else if (stop[i].size() > kMaxStopBytes) {
      faults.add({field, "max_length(100)",
                  "stop sequence " + index + " must be at most 100 characters (got " +
                      std::to_string(stop[i].size()) + ")",
                  std::nullopt});
    }
  }
}

Faults check_values(const ExecuteRequest& r, std::optional<float> keepalive_s, int64_t priority) {
  Faults faults;
  if (r.job_id.empty()) faults.add({"job_id", "non_empty", "job_id must not be empty", ""});
  check_prompt(r.prompt, faults);
  if (r.max_tokens < 1) {
    faults.add({"max_tokens", "range(1..=2048)", "max_tokens must be at least 1",
                std::to_string(r.max_tokens)});
  } else {
    faults.integer("max_tokens", r.max_tokens, 1, kMaxTokens);
  }
  faults.range("temperature", r.temperature, kZeroToTwo);
  faults.range("top_p", r.top_p, kZeroToOne);
  faults.range("repetition_penalty", r.repetition_penalty, kZeroToTwo);
  check_stop(r.stop, faults);
  faults.range("min_p", r.min_p, kZeroToOne);
  if (r.logprobs) faults.integer("logprobs", *r.logprobs, 0, kMaxLogprobs);
  if (keepalive_s) faults.range("keepalive_s", *keepalive_s, kKeepalive);
  faults.integer("priority", priority, kLeastPriority, kMostPriority);
  return faults;
}

}  // namespace

std::variant<ExecuteRequest, Reply> parse_execute(std::string_view body) try {
  constexpr std::string_view kKnown[] = {
      "job_id",   "prompt",     "max_tokens",         "temperature", "seed",
      "top_p",    "top_k",      "repetition_penalty", "stop",        "min_p",
      "logprobs", "ignore_eos", "stream_resume",      "keepalive_s", "priority"};
  const JsonTree object = parse_object(body, kKnown);
  const Fields fields(object.root);
  ExecuteRequest r;
  r.job_id = fields.required_string("job_id");
  r.prompt = fields.required_string("prompt");
  r.max_tokens = fields.required_u32("max_tokens");
  // x + 0.0F turns -0.0 into 0.0, so that "temperature is 0" has one form from here on.
  r.temperature = fields.f32("temperature", 1) + 0.0F;
  r.seed = fields.u64_or_null("seed");
  r.top_p = fields.f32("top_p", 1) + 0.0F;
  r.top_k = fields.u32("top_k", 0);
  r.repetition_penalty = fields.f32("repetition_penalty", 1) + 0.0F;
  r.stop = fields.strings("stop");
  r.min_p = fields.f32("min_p", 0) + 0.0F;
  r.logprobs = fields.u32_or_null("logprobs");
  r.ignore_eos = fields.boolean("ignore_eos", false);
  r.stream_resume = fields.boolean("stream_resume", false);
  const std::optional<float> keepalive_s = fields.f32_or_null("keepalive_s");
  const int64_t priority = fields.i64("priority", 0);

  const Faults faults = check_values(r, keepalive_s, priority);
  if (!faults.all().empty()) return refuse(faults.all());
  r.priority = static_cast<int32_t>(priority);
  if (keepalive_s) r.keepalive = std::chrono::milliseconds(std::lround(*keepalive_s * 1000));
  return r;
} catch (const BadJson& bad) {
  return refuse(bad);
} catch (const BadField& bad) {
  return refuse(bad);
}

std::string fingerprint_of(const ExecuteRequest& r) {
  std::string text = json_string(r.prompt);
  const auto add = [&text](const std::string& value) { text += ' ' + value; };
  const auto add_optional = [&add](const auto& value) {
    add(value ? std::to_string(*value) : "null");
  };
  for (const float value : {r.temperature, r.top_p, r.repetition_penalty, r.min_p}) {
    add(json_number(value));
  }
  add_optional(r.seed);
  add_optional(r.logprobs);
  add(std::to_string(r.max_tokens));
  add(std::to_string(r.top_k));
  add(std::to_string(r.priority));
  add(std::to_string(r.keepalive.count()));
  add(r.ignore_eos ? "ignore_eos" : "eos");
  add(r.stream_resume ? "resume" : "once");
  for (const std::string& stop : r.stop) add(json_string(stop));
  return text;
}

std::variant<std::string, Reply> parse_cancel(std::string_view body) try {
  constexpr std::string_view kKnown[] = {"job_id"};
  return Fields(parse_object(body, kKnown).root).required_string("job_id");
} catch (const BadJson& bad) {
  return refuse(bad);
} catch (const BadField& bad) {
  return refuse(bad);
}

std::optional<Reply> check_length(size_t prompt_tokens, uint32_t max_tokens, int context) {
  if (prompt_tokens == 0) {
    return refuse(
        {FieldError{"prompt", "tokens(1..)", "prompt must have at least one token", std::nullopt}});
  }
  if (prompt_tokens + max_tokens > static_cast<size_t>(context)) {
    const std::string n = std::to_string(context);
    return refuse(
        {FieldError{"prompt", "context_length(" + n + ")",
                    "prompt has " + std::to_string(prompt_tokens) + " tokens and max_tokens is " +
                        std::to_string(max_tokens) + "; the context is " + n,
                    std::nullopt}});
  }
  return std::nullopt;
}

}  // namespace llorch
