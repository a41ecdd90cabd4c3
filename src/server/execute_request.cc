#include "server/execute_request.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/json_text.h"

namespace llorch {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxPromptCharacters = 32768, kMaxStop = 4, kMaxStopBytes = 100;
// A 2 MiB body can break the rules of `stop` half a million times; the answer stays smaller than
// that.
constexpr size_t kMaxStopReported = 4096;
constexpr uint32_t kMaxTokens = 2048, kMaxLogprobs = 20;

struct Refused {
  Reply reply;
};
[[noreturn]] void wrong_field(const std::string& field, const std::string& what) {
  throw Refused{refuse(Refusal::kInvalidField, "`" + field + "` " + what)};
}

// An object with those of its keys that are asked for. What is skipped is still checked, not
// stored.
Json parse_object(std::string_view body, std::initializer_list<std::string_view> known) {
  const auto keep = [&](int depth, Json::parse_event_t event, Json& value) {
    using Kind = Json::parse_event_t;
    if ((event == Kind::object_start || event == Kind::array_start) && depth >= kMaxDepth) {
      throw Refused{refuse(Refusal::kInvalidJson, "the body is nested too deeply; at most " +
                                                      std::to_string(kMaxDepth) + " levels")};
    }
    if (event != Kind::key || depth != 1) return true;
    return std::find(known.begin(), known.end(), value.get_ref<const std::string&>()) !=
           known.end();
  };
  const auto not_json = [](size_t byte) {
    return Refused{
        refuse(Refusal::kInvalidJson, "the body is not valid JSON; byte " + std::to_string(byte))};
  };
  // The library takes a NUL for the end of the text.
  if (const size_t nul = body.find('\0'); nul != std::string_view::npos) throw not_json(nul + 1);
  Json object;
  try {
    object = Json::parse(body, keep);
  } catch (const Json::parse_error& e) {
    throw not_json(e.byte);
  } catch (const Json::out_of_range&) {
    throw Refused{refuse(Refusal::kInvalidJson, "the body has a number beyond all number types")};
  }
  if (!object.is_object()) {
    throw Refused{refuse(Refusal::kInvalidField, "the body must be a JSON object")};
  }
  return object;
}

// Typed access to the fields of one object; each member throws Refused on a wrong type.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  std::string required_string(const char* name) const {
    const Json* value = find(name);
    if (!value) wrong_field(name, "is missing");
    if (!value->is_string()) wrong_field(name, "must be a string");
    return value->get<std::string>();
  }
  uint32_t required_u32(const char* name) const {
    if (!find(name)) wrong_field(name, "is missing");
    return u32(name, 0);
  }
  uint32_t u32(const char* name, uint32_t absent) const {
    const Json* value = find(name);
    if (!value) return absent;
    constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
    if (!value->is_number_unsigned() || value->get<uint64_t>() > kMax) {
      wrong_field(name, "must be an integer from 0 to 4294967295");
    }
    return value->get<uint32_t>();
  }
  std::optional<uint32_t> u32_or_null(const char* name) const {
    const Json* value = find(name);
    if (!value || value->is_null()) return std::nullopt;
    return u32(name, 0);
  }
  std::optional<uint64_t> u64_or_null(const char* name) const {
    const Json* value = find(name);
    if (!value || value->is_null()) return std::nullopt;
    if (!value->is_number_unsigned()) {
      wrong_field(name, "must be an integer from 0 to 18446744073709551615, or null");
    }
    return value->get<uint64_t>();
  }
  int64_t i64(const char* name, int64_t absent) const {
    const Json* value = find(name);
    if (!value) return absent;
    if (!value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{1} << 62)) {
      wrong_field(name, "must be an integer");
    }
    return value->get<int64_t>();
  }
  float f32(const char* name, float absent) const {
    const Json* value = find(name);
    if (!value) return absent;
    if (!value->is_number()) wrong_field(name, "must be a number");
    return static_cast<float>(value->get<double>());
  }
  std::optional<float> f32_or_null(const char* name) const {
    const Json* value = find(name);
    if (!value || value->is_null()) return std::nullopt;
    return f32(name, 0);
  }
  bool boolean(const char* name, bool absent) const {
    const Json* value = find(name);
    if (!value) return absent;
    if (!value->is_boolean()) wrong_field(name, "must be true or false");
    return value->get<bool>();
  }
  std::vector<std::string> strings(const char* name) const {
    const Json* value = find(name);
    if (!value) return {};
    if (!value->is_array()) wrong_field(name, "must be an array of strings");
    std::vector<std::string> all;
    for (const Json& one : *value) {
      if (!one.is_string()) {
        wrong_field(std::string(name) + "[" + std::to_string(all.size()) + "]", "must be a string");
      }
      all.push_back(one.get<std::string>());
    }
    return all;
  }

 private:
  const Json* find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  const Json& object_;
};

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
  void at_most(const char* field, uint32_t value, uint32_t least, uint32_t most) {
    if (value <= most) return;
    const std::string got = std::to_string(value), limit = std::to_string(most);
    add({field, "range(" + std::to_string(least) + "..=" + limit + ")",
         std::string(field) + " must be at most " + limit + " (got " + got + ")", got});
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

Faults check_values(const ExecuteRequest& r, std::optional<float> keepalive_s) {
  Faults faults;
  if (r.job_id.empty()) faults.add({"job_id", "non_empty", "job_id must not be empty", ""});
  check_prompt(r.prompt, faults);
  if (r.max_tokens < 1) {
    faults.add({"max_tokens", "range(1..=2048)", "max_tokens must be at least 1",
                std::to_string(r.max_tokens)});
  }
  faults.at_most("max_tokens", r.max_tokens, 1, kMaxTokens);
  faults.range("temperature", r.temperature, kZeroToTwo);
  faults.range("top_p", r.top_p, kZeroToOne);
  faults.range("repetition_penalty", r.repetition_penalty, kZeroToTwo);
  check_stop(r.stop, faults);
  faults.range("min_p", r.min_p, kZeroToOne);
  if (r.logprobs) faults.at_most("logprobs", *r.logprobs, 0, kMaxLogprobs);
  if (keepalive_s) faults.range("keepalive_s", *keepalive_s, kKeepalive);
  return faults;
}

void refuse_what_is_not_there_yet(const Fields& fields) {
  if (fields.boolean("stream_resume", false)) wrong_field("stream_resume", "is not supported yet");
  if (fields.i64("priority", 0) != 0) wrong_field("priority", "is not supported yet");
}

}  // namespace

std::variant<ExecuteRequest, Reply> parse_execute(std::string_view body) {
  try {
    const Json object =
        parse_object(body, {"job_id", "prompt", "max_tokens", "temperature", "seed", "top_p",
                            "top_k", "repetition_penalty", "stop", "min_p", "logprobs",
                            "ignore_eos", "stream_resume", "keepalive_s", "priority"});
    const Fields fields(object);
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
    const std::optional<float> keepalive_s = fields.f32_or_null("keepalive_s");
    refuse_what_is_not_there_yet(fields);

    const Faults faults = check_values(r, keepalive_s);
    if (!faults.all().empty()) return refuse(faults.all());
    if (keepalive_s) r.keepalive = std::chrono::milliseconds(std::lround(*keepalive_s * 1000));
    return r;
  } catch (Refused& refused) {
    return std::move(refused.reply);
  }
}

std::variant<std::string, Reply> parse_cancel(std::string_view body) {
  try {
    const Json object = parse_object(body, {"job_id"});
    return Fields(object).required_string("job_id");
  } catch (Refused& refused) {
    return std::move(refused.reply);
  }
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
