#include "server/openai_request.h"

#include <algorithm>
#include <array>

#include "server/json_fields.h"
#include "server/json_text.h"

namespace llorch {
namespace {

constexpr size_t kMaxStop = 4, kMaxStopBytes = 4096;
constexpr size_t kMaxShown = 100;  // bytes of a client's own text in a message

OpenAiError invalid(const std::string& param, const std::string& message, const char* code) {
  return {.message = message, .param = param, .code = code};
}

OpenAiError unsupported(const std::string& param, const std::string& what) {
  return invalid(param, "'" + param + "' " + what, "unsupported_parameter");
}

std::string shown(const std::string& text) {
  const std::string_view begin = beginning(text, kMaxShown);
  return "'" + std::string(begin) + (begin.size() < text.size() ? "..." : "") + "'";
}

OpenAiError unknown_parameter(const std::string& where, const std::string& key) {
  return invalid(where + std::string(beginning(key, kMaxShown)),
                 "Unknown parameter: " + shown(where + key) + ".", "unknown_parameter");
}

// A field that is not there yet, and the values of it that change nothing (beside null).
struct Absent {
  const char* name;
  std::array<const char*, 2> neutral;  // JSON
};
constexpr Absent kNotInCompletions[] = {
    {"best_of", {"1"}}, {"frequency_penalty", {"0"}}, {"logit_bias", {"{}"}},
    {"n", {"1"}},       {"presence_penalty", {"0"}},  {"suffix", {"\"\""}},
};
constexpr Absent kNotInChat[] = {
    {"audio", {}},
    {"frequency_penalty", {"0"}},
    {"function_call", {"\"none\"", "\"auto\""}},
    {"functions", {"[]"}},
    {"logit_bias", {"{}"}},
    {"modalities", {"[\"text\"]"}},
    {"moderation", {}},
    {"n", {"1"}},
    {"prediction", {}},
    {"presence_penalty", {"0"}},
    {"prompt_cache_options", {}},
    {"prompt_cache_retention", {"\"in_memory\""}},
    {"reasoning_effort", {}},
    {"response_format", {"{\"type\":\"text\"}"}},
    {"service_tier", {"\"auto\"", "\"default\""}},
    {"store", {"false"}},
    {"tool_choice", {"\"none\"", "\"auto\""}},
    {"tools", {"[]"}},
    {"verbosity", {"\"medium\""}},
    {"web_search_options", {}},
};
// What says who asks or how to route; it never changes an answer.
constexpr std::string_view kLabels[] = {"user", "safety_identifier", "prompt_cache_key"};

constexpr std::string_view kCommonFields[] = {"model",
                                              "max_tokens",
                                              "temperature",
                                              "top_p",
                                              "seed",
                                              "stop",
                                              "logprobs",
                                              "stream",
                                              "stream_options",
                                              "user",
                                              "min_p",
                                              "top_k",
                                              "repetition_penalty",
                                              "ignore_eos",
                                              "priority"};
constexpr std::string_view kCompletionFields[] = {"prompt", "echo"};
constexpr std::string_view kChatFields[] = {
    "messages",           "max_completion_tokens", "top_logprobs",         "safety_identifier",
    "metadata",           "prompt_cache_key",      "chat_template_kwargs", "add_generation_prompt",
    "parallel_tool_calls"};

std::vector<std::string_view> known_fields(std::span<const std::string_view> own,
                                           std::span<const Absent> absent) {
  std::vector<std::string_view> all(std::begin(kCommonFields), std::end(kCommonFields));
  all.insert(all.end(), own.begin(), own.end());
  for (const Absent& row : absent) all.emplace_back(row.name);
  return all;
}

void refuse_what_is_not_there(const Fields& fields, std::span<const Absent> absent) {
  for (const Absent& row : absent) {
    const Json* value = fields.find(row.name);
    if (!value) continue;
    std::string accepted;
    bool changes_nothing = false;
    for (const char* neutral : row.neutral) {
      if (!neutral) continue;
      changes_nothing = changes_nothing || *value == Json::parse(neutral);
      accepted += (accepted.empty() ? "" : " or ") + std::string(neutral);
    }
    if (changes_nothing) continue;
    throw unsupported(row.name, accepted.empty() ? "is not supported yet"
                                                 : "is not supported yet; it may be " + accepted);
  }
}

// Fields of a request; each member throws OpenAiError or BadField.
class OpenAiFields {
 public:
  explicit OpenAiFields(const Json& object) : fields_(object, Fields::Nulls::kAreAbsent) {}
  const Fields* operator->() const { return &fields_; }
  const Fields& operator*() const { return fields_; }

  float decimal(const char* name, float absent, float most) const {
    const float value = fields_.f32(name, absent) + 0.0F;  // -0.0 becomes 0.0
    check(name, "decimal", value >= 0, value <= most, "0", plain_number(most), plain_number(value));
    return value;
  }
  std::optional<int64_t> integer(const char* name, int64_t least, int64_t most) const {
    if (!fields_.find(name)) return std::nullopt;
    const int64_t value = fields_.i64(name, 0);
    check(name, "integer", value >= least, value <= most, std::to_string(least),
          std::to_string(most), std::to_string(value));
    return value;
  }
  // `most` is below 2^32.
  std::optional<uint32_t> u32(const char* name, int64_t least, int64_t most) const {
    const std::optional<int64_t> value = integer(name, least, most);
    return value ? std::optional(static_cast<uint32_t>(*value)) : std::nullopt;
  }
  std::optional<uint64_t> seed() const {
    const Json* value = fields_.find("seed");
    if (!value) return std::nullopt;
    if (value->is_number_unsigned()) return value->get<uint64_t>();
    return static_cast<uint64_t>(fields_.i64("seed", 0));
  }
  std::vector<std::string> stop() const {
    const Json* value = fields_.find("stop");
    if (!value) return {};
    std::vector<std::string> all;
    if (value->is_string()) {
      all.push_back(value->get<std::string>());
    } else if (value->is_array()) {
      all = fields_.strings("stop");
    } else {
      fields_.wrong("stop", "must be a string or an array of strings");
    }
    if (all.size() > kMaxStop) {
      throw invalid("stop",
                    "Invalid 'stop': array too long. Expected an array with maximum length 4, but "
                    "got an array with length " +
                        std::to_string(all.size()) + " instead.",
                    "array_above_max_length");
    }
    for (const std::string& one : all) {
      if (one.empty() || one.size() > kMaxStopBytes) {
        throw invalid("stop", "Invalid 'stop': a sequence must have 1 to 4096 bytes.",
                      one.empty() ? "empty_string" : "string_above_max_length");
      }
    }
    return all;
  }

 private:
  static void check(const char* name, const std::string& kind, bool high_enough, bool low_enough,
                    const std::string& least, const std::string& most, const std::string& got) {
    if (high_enough && low_enough) return;
    const std::string where = low_enough ? "below minimum" : "above maximum";
    throw invalid(name,
                  "Invalid '" + std::string(name) + "': " + kind + " " + where +
                      " value. Expected a value " + (low_enough ? ">= " + least : "<= " + most) +
                      ", but got " + got + " instead.",
                  (kind + (low_enough ? "_below_min_value" : "_above_max_value")).c_str());
  }
  const Fields fields_;
};

constexpr int64_t kMaxU32 = 4294967295;

void parse_common(const OpenAiFields& fields, OpenAiRequest& r) {
  r.model = fields->required_string("model");
  r.temperature = fields.decimal("temperature", 1, 2);
  r.top_p = fields.decimal("top_p", 1, 1);
  r.min_p = fields.decimal("min_p", 0, 1);
  r.repetition_penalty = fields.decimal("repetition_penalty", 1, 2);
  r.top_k = fields.u32("top_k", 0, kMaxU32).value_or(0);
  r.seed = fields.seed();
  r.max_tokens = fields.u32("max_tokens", 1, kMaxU32);
  r.stop = fields.stop();
  r.ignore_eos = fields->boolean("ignore_eos", false);
  r.priority =
      static_cast<int32_t>(fields.integer("priority", kLeastPriority, kMostPriority).value_or(0));
  for (const std::string_view label : kLabels) fields->string(label.data(), "");
  r.stream = fields->boolean("stream", false);
  const Json* options = fields->find("stream_options");
  if (!options) return;
  if (!r.stream) {
    throw invalid("stream_options",
                  "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                  "invalid_parameter_combination");
  }
  if (!options->is_object()) fields->wrong("stream_options", "must be an object");
  for (const auto& [key, value] : options->items()) {
    if (key != "include_usage" && key != "include_obfuscation") {
      throw unknown_parameter("stream_options.", key);
    }
  }
  const Fields inner(*options, Fields::Nulls::kAreAbsent, "stream_options.");
  r.include_usage = inner.boolean("include_usage", false);
  if (inner.boolean("include_obfuscation", false)) {
    throw unsupported("stream_options.include_obfuscation",
                      "is not supported yet; it may be false");
  }
}

// A prompt: text, or token ids, or an array with one of either.
std::variant<std::string, std::vector<int32_t>> one_prompt(const Json& value,
                                                           const std::string& field) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) throw BadField{field, "must be a string or an array"};
  if (value.empty()) {
    throw invalid(field, "Invalid '" + field + "': empty array.", "empty_array");
  }
  if (value[0].is_number()) return token_ids(value, field);
  if (field != "prompt") throw BadField{field, "must be a string or an array of token ids"};
  if (value.size() > 1) {
    throw unsupported(field, "with more than one prompt is not supported yet");
  }
  return one_prompt(value[0], field + "[0]");
}

// The text of a message's content: a string, or text parts with a line end between them.
std::string content_text(const Json& content, const std::string& field) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) throw BadField{field, "must be a string or an array of parts"};
  if (content.empty()) throw invalid(field, "Invalid '" + field + "': empty array.", "empty_array");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string where = field + "[" + std::to_string(i) + "]";
    if (!part.is_object()) throw BadField{where, "must be an object"};
    const Fields fields(part, Fields::Nulls::kAreAbsent, where + ".");
    const std::string type = fields.required_string("type");
    if (type != "text") {
      throw unsupported(where + ".type", shown(type) + " is not supported yet; it may be 'text'");
    }
    for (const auto& [key, value] : part.items()) {
      if (key != "type" && key != "text" && !value.is_null()) {
        throw unknown_parameter(where + ".", key);
      }
    }
    if (i > 0) text += '\n';
    text += fields.required_string("text");
  }
  return text;
}

void check_role(const std::string& role, const std::string& field) {
  for (const char* known : {"system", "developer", "user", "assistant"}) {
    if (role == known) return;
  }
  for (const char* later : {"tool", "function"}) {
    if (role == later) throw unsupported(field, shown(role) + " is not supported yet");
  }
  throw invalid(field,
                "Invalid value: " + shown(role) +
                    ". Supported values are: 'system', 'developer', 'user' and 'assistant'.",
                "invalid_value");
}

// Not there yet, unless null or empty: so clients send back what an earlier answer had not.
constexpr std::string_view kNotInMessages[] = {"refusal",       "audio",        "tool_calls",
                                               "function_call", "tool_call_id", "annotations"};

// The message as the template gets it: its members in their order, but for those that say nothing.
JsonTree message(const Json& given, const std::string& where) {
  if (!given.is_object()) throw BadField{where, "must be an object"};
  const Fields fields(given, Fields::Nulls::kAreAbsent, where + ".");
  const std::string role = fields.required_string("role");
  check_role(role, fields.path("role"));
  // Before the content, which is null where there are tool calls.
  for (const std::string_view name : kNotInMessages) {
    const Json* value = fields.find(name.data());
    if (value && !value->empty()) {
      throw unsupported(fields.path(name.data()), "is not supported yet");
    }
  }
  fields.required("content");
  JsonTree tree(Json::object());
  Json& result = tree.root;
  for (const auto& [key, value] : given.items()) {
    if (value.is_null() || std::find(std::begin(kNotInMessages), std::end(kNotInMessages), key) !=
                               std::end(kNotInMessages)) {
      continue;
    }
    if (key == "content") {
      result[key] = content_text(value, fields.path("content"));
    } else if (key == "role" || key == "name" || key == "reasoning_content") {
      result[key] = fields.string(key.c_str(), "");
    } else {
      throw unknown_parameter(where + ".", key);
    }
  }
  return tree;
}

std::string parse_messages(const Fields& fields) {
  const Json& given = fields.required("messages");
  if (!given.is_array()) fields.wrong("messages", "must be an array of messages");
  if (given.empty()) {
    throw invalid("messages",
                  "Invalid 'messages': empty array. Expected an array with minimum length 1, but "
                  "got an empty array instead.",
                  "empty_array");
  }
  JsonTree all(Json::array());
  for (size_t i = 0; i < given.size(); ++i) {
    JsonTree next = message(given[i], "messages[" + std::to_string(i) + "]");
    all.root.push_back(std::move(next.root));
  }
  return all.root.dump();
}

void parse_chat_logprobs(const OpenAiFields& fields, OpenAiRequest& r) {
  const std::optional<uint32_t> top = fields.u32("top_logprobs", 0, 20);
  if (fields->boolean("logprobs", false)) {
    r.logprobs = top.value_or(0);
  } else if (top) {
    throw invalid("top_logprobs",
                  "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
                  "invalid_parameter_combination");
  }
}

// Of the two names of the same limit.
void parse_max_completion_tokens(const OpenAiFields& fields, OpenAiRequest& r) {
  const std::optional<uint32_t> most = fields.u32("max_completion_tokens", 1, kMaxU32);
  if (!most) return;
  if (r.max_tokens) {
    throw invalid("max_tokens",
                  "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not "
                  "supported.",
                  "invalid_parameter_combination");
  }
  r.max_tokens = most;
}

// The body as an object, and what `parse` makes of it.
template <class Parse>
std::variant<OpenAiRequest, OpenAiError> parsed(std::string_view body,
                                                std::span<const std::string_view> known,
                                                Parse parse) {
  try {
    std::string unknown;
    const JsonTree object = parse_object(body, known, &unknown);
    if (!unknown.empty()) throw unknown_parameter("", unknown);
    OpenAiRequest request;
    parse(OpenAiFields(object.root), request);
    return request;
  } catch (const BadJson& bad) {
    return OpenAiError{.message = bad.message, .param = {}, .code = {}};
  } catch (const BadField& bad) {
    OpenAiError error{.message = bad.message(), .param = {}, .code = "invalid_type"};
    if (!bad.field.empty()) error.param = bad.field;
    if (bad.what == "is missing") error.code = "missing_required_parameter";
    return error;
  } catch (const OpenAiError& error) {
    return error;
  }
}

}  // namespace

std::variant<OpenAiRequest, OpenAiError> parse_completion(std::string_view body) {
  static const auto kKnown = known_fields(kCompletionFields, kNotInCompletions);
  return parsed(body, kKnown, [](const OpenAiFields& fields, OpenAiRequest& r) {
    parse_common(fields, r);
    r.prompt = one_prompt(fields->required("prompt"), "prompt");
    r.logprobs = fields.u32("logprobs", 0, 5);
    r.echo = fields->boolean("echo", false);
    refuse_what_is_not_there(*fields, kNotInCompletions);
    if (r.echo && r.logprobs) throw unsupported("echo", "with 'logprobs' is not supported yet");
  });
}

std::variant<OpenAiRequest, OpenAiError> parse_chat(std::string_view body) {
  static const auto kKnown = known_fields(kChatFields, kNotInChat);
  return parsed(body, kKnown, [](const OpenAiFields& fields, OpenAiRequest& r) {
    parse_common(fields, r);
    parse_max_completion_tokens(fields, r);
    parse_chat_logprobs(fields, r);
    r.conversation.messages = parse_messages(*fields);
    r.conversation.add_generation_prompt = fields->boolean("add_generation_prompt", true);
    if (const Json* arguments = fields->find("chat_template_kwargs")) {
      if (!arguments->is_object()) fields->wrong("chat_template_kwargs", "must be an object");
      r.conversation.kwargs = arguments->dump();
    }
    if (const Json* metadata = fields->find("metadata"); metadata && !metadata->is_object()) {
      fields->wrong("metadata", "must be an object");
    }
    fields->boolean("parallel_tool_calls", false);
    refuse_what_is_not_there(*fields, kNotInChat);
  });
}

}  // namespace llorch
