#include "server/generation.h"

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "server/execute_request.h"
#include "server/json_text.h"
#include "server/openai_request.h"
#include "server/openai_writer.h"
#include "server/sse.h"

namespace llorch {
namespace {

uint64_t random_seed() {
  // Below 2^53: exact in every JSON reader.
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator() >> 11;
}

uint64_t seed_of(const SamplingFields& r, const ServerOptions& options) {
  if (r.seed) return *r.seed;
  return options.seed_default ? *options.seed_default : random_seed();
}

// Takes what it needs out of the fields.
Request request_of(SamplingFields& r, const ServerOptions& options) {
  Request request;
  Sampling& s = request.sampling;
  s.temperature = r.temperature;
  s.top_p = r.top_p;
  s.min_p = r.min_p;
  s.repetition_penalty = r.repetition_penalty;
  constexpr uint32_t kMaxTopK = std::numeric_limits<int32_t>::max();
  s.top_k = static_cast<int32_t>(std::min(r.top_k, kMaxTopK));
  s.seed = seed_of(r, options);
  s.top_logprobs = r.logprobs ? static_cast<int32_t>(*r.logprobs) : -1;
  request.stop = std::move(r.stop);
  request.ignore_eos = r.ignore_eos;
  request.priority = r.priority;
  request.timeout = options.request_timeout;
  return request;
}

// The worker as a whole: the same for the same answers. FNV-1a.
std::string system_fingerprint(const Service& service, const ServerOptions& options) {
  uint64_t hash = 14695981039346656037U;
  const std::string text = options.backend + '\n' + options.model_name + '\n' +
                           service.architecture + '\n' + std::to_string(service.weight_bytes);
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211U;
  std::string out = "fp_";
  for (int i = 0; i < 10; ++i) out += "0123456789abcdef"[(hash >> (4 * i)) & 15];
  return out;
}

std::string new_id(const char* prefix) {
  std::string id = new_uuid();
  std::erase(id, '-');
  return prefix + id;
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

using Ids = std::vector<int32_t>;

std::variant<Ids, Reply> chat_prompt(const Service& service, const OpenAiRequest& wanted) {
  const ChatTemplates& chat = *service.chat;
  if (!chat.usable()) return refuse(Refusal::kNoChatTemplate, chat.why_not());
  std::string text;
  try {
    text = chat.apply(wanted.conversation);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadRequest) throw;
    return refuse(
        OpenAiError{.message = error.what(), .param = "messages", .code = "chat_template_error"});
  }
  return service.tokenizer->encode(text, {.add_special_tokens = false});
}

// Leaves a prompt that is text where it is, for its echo.
Ids completion_prompt(const Service& service, const OpenAiRequest& wanted) {
  const auto* ids = std::get_if<Ids>(&wanted.prompt);
  return ids ? *ids : service.tokenizer->encode(std::get<std::string>(wanted.prompt));
}

// None if all are ids of the model, which may have fewer or more than its tokenizer.
std::optional<OpenAiError> check_ids(const Ids& prompt, int32_t vocab) {
  const auto bad =
      std::find_if(prompt.begin(), prompt.end(), [vocab](int32_t id) { return id >= vocab; });
  if (bad == prompt.end()) return std::nullopt;
  return OpenAiError{.message = "Invalid 'prompt': there is no token " + std::to_string(*bad) +
                                "; the vocabulary has " + std::to_string(vocab) + ".",
                     .param = "prompt",
                     .code = "invalid_value"};
}

// None if a prompt of that many tokens has room for what is wanted.
std::optional<OpenAiError> check_room(size_t prompt_tokens, const OpenAiRequest& wanted, bool chat,
                                      int context) {
  const char* const param = chat ? "messages" : "prompt";
  if (prompt_tokens == 0) {
    return OpenAiError{.message = std::string("Invalid '") + param + "': it has no tokens.",
                       .param = param,
                       .code = "invalid_value"};
  }
  const uint64_t completion = wanted.max_tokens.value_or(1);
  const uint64_t all = prompt_tokens + completion;
  if (all <= static_cast<uint64_t>(context)) return std::nullopt;
  return OpenAiError{.message = "This model's maximum context length is " +
                                std::to_string(context) + " tokens. However, you requested " +
                                std::to_string(all) + " tokens (" + std::to_string(prompt_tokens) +
                                " in the " + param + ", " + std::to_string(completion) +
                                " in the completion). Please reduce the length of " + "the " +
                                param + " or completion.",
                     .param = param,
                     .code = "context_length_exceeded"};
}

}  // namespace

std::variant<Generation, Reply> execute_generation(const Service& service,
                                                   const ServerOptions& options,
                                                   std::string_view body) {
  auto parsed = parse_execute(body);
  if (auto* reply = std::get_if<Reply>(&parsed)) return std::move(*reply);
  ExecuteRequest& wanted = std::get<ExecuteRequest>(parsed);
  Ids prompt = service.tokenizer->encode(wanted.prompt);
  if (auto reply = check_length(prompt.size(), wanted.max_tokens, service.engine->context())) {
    return std::move(*reply);
  }
  Generation g;
  g.writer = std::make_unique<SseWriter>(
      StreamFacts{wanted.job_id, options.model_name, service.weight_bytes});
  g.reading = {.event_ids = wanted.stream_resume, .keepalive = wanted.keepalive};
  std::string fingerprint = fingerprint_of(wanted);
  g.request = request_of(wanted, options);
  g.request.fingerprint = std::move(fingerprint);
  g.request.resumable = wanted.stream_resume;
  g.request.job_id = std::move(wanted.job_id);
  g.request.prompt = std::move(prompt);
  g.request.max_tokens = static_cast<int32_t>(wanted.max_tokens);
  return g;
}

std::variant<Generation, Reply> openai_generation(const Service& service,
                                                  const ServerOptions& options,
                                                  std::string_view body, bool chat) {
  auto parsed = chat ? parse_chat(body) : parse_completion(body);
  if (const auto* error = std::get_if<OpenAiError>(&parsed)) return refuse(*error);
  OpenAiRequest& wanted = std::get<OpenAiRequest>(parsed);
  if (wanted.model != options.model_name) return no_such_model(wanted.model);
  std::variant<Ids, Reply> made;
  if (chat) {
    made = chat_prompt(service, wanted);
  } else {
    made = completion_prompt(service, wanted);
  }
  if (auto* reply = std::get_if<Reply>(&made)) return std::move(*reply);
  Ids& prompt = std::get<Ids>(made);
  if (!chat) {
    if (const auto error = check_ids(prompt, service.engine->vocab())) return refuse(*error);
  }
  const int context = service.engine->context();
  if (const auto error = check_room(prompt.size(), wanted, chat, context)) return refuse(*error);

  CompletionFacts facts{.chat = chat,
                        .id = new_id(chat ? "chatcmpl-" : "cmpl-"),
                        .model = options.model_name,
                        .fingerprint = system_fingerprint(service, options),
                        .created = unix_seconds(),
                        .echo = {},
                        .logprobs = wanted.logprobs.has_value(),
                        .include_usage = wanted.include_usage,
                        .tokenizer = service.tokenizer};
  if (wanted.echo) {
    auto* text = std::get_if<std::string>(&wanted.prompt);
    facts.echo = text ? std::move(*text) : service.tokenizer->decode(prompt, false);
  }
  Generation g;
  g.request = request_of(wanted, options);
  g.request.job_id = facts.id;
  g.request.max_tokens = wanted.max_tokens ? static_cast<int32_t>(*wanted.max_tokens)
                                           : context - static_cast<int32_t>(prompt.size());
  g.request.open_ended = !wanted.max_tokens;
  g.request.prompt = std::move(prompt);
  g.request.in_one_piece = !wanted.stream;
  g.writer = wanted.stream ? chunk_writer(std::move(facts)) : whole_writer(std::move(facts));
  return g;
}

Reply no_such_model(const std::string& name) {
  constexpr size_t kMaxShown = 200;
  return refuse(OpenAiError{
      .status = 404,
      .message = "The model `" + std::string(beginning(name, kMaxShown)) + "` does not exist here.",
      .param = "model",
      .code = "model_not_found"});
}

}  // namespace llorch
