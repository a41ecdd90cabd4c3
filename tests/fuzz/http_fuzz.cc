// The body of each path, of any bytes: a request within its ranges, or a refusal that is JSON. The
// same bytes also stand for a target, header values and text to be written as JSON.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/config.h"
#include "base/error.h"
#include "server/execute_request.h"
#include "server/http_text.h"
#include "server/json_text.h"
#include "server/openai_request.h"
#include "server/text_tools.h"
#include "tokenizer/testing.h"

namespace {

using llorch::Reply;

bool within(float value, float most) { return value >= 0 && value <= most; }

void check_request(const llorch::ExecuteRequest& r) {
  CHECK(!r.job_id.empty());
  CHECK(!r.prompt.empty() && r.prompt.size() <= size_t{4} * 32768);
  CHECK(r.max_tokens >= 1 && r.max_tokens <= 2048);
  CHECK(within(r.temperature, 2) && within(r.top_p, 1) && within(r.min_p, 1));
  CHECK(within(r.repetition_penalty, 2));
  CHECK(r.stop.size() <= 4);
  for (const std::string& s : r.stop) CHECK(!s.empty() && s.size() <= 100);
  CHECK(!r.logprobs || *r.logprobs <= 20);
  CHECK(r.keepalive.count() >= 0 && r.keepalive.count() <= 3'600'000);
}

void check_refusal(const Reply& reply) {
  CHECK(reply.status == 400 || reply.status == 422);
  const auto body = nlohmann::json::parse(reply.body);
  CHECK(body.contains("errors") ? !body["errors"].empty() : body.contains("code"));
}

void check_openai(const std::variant<llorch::OpenAiRequest, llorch::OpenAiError>& parsed,
                  bool chat) {
  if (const auto* error = std::get_if<llorch::OpenAiError>(&parsed)) {
    CHECK(error->status == 400 && !error->message.empty());
    CHECK(nlohmann::json::parse(llorch::error_json(*error))["error"].size() == 4);
    return;
  }
  const auto& r = std::get<llorch::OpenAiRequest>(parsed);
  CHECK(within(r.temperature, 2) && within(r.top_p, 1) && within(r.min_p, 1));
  CHECK(within(r.repetition_penalty, 2));
  CHECK(!r.max_tokens || *r.max_tokens >= 1);
  CHECK(r.stop.size() <= 4);
  CHECK(!r.logprobs || *r.logprobs <= 20);
  CHECK(r.stream || !r.include_usage);
  if (!chat) return;
  const auto messages = nlohmann::json::parse(r.conversation.messages);
  CHECK(!messages.empty());
  for (const auto& m : messages) CHECK(m.at("role").is_string() && m.at("content").is_string());
}

const llorch::Tokenizer& tokenizer() {
  static const llorch::Tokenizer kTokenizer = llorch::tokenizer_of(llorch::byte_level_json());
  return kTokenizer;
}

const llorch::ChatTemplates& templates() {
  static const llorch::ChatTemplates kTemplates = llorch::ChatTemplates::load(
      R"({"chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"})",
      "", "fuzz");
  return kTemplates;
}

template <class Tool>
void check_tool(Tool tool) {
  try {
    const Reply reply = tool();
    CHECK(reply.status == 200 || reply.status == 400);
    CHECK(nlohmann::json::accept(reply.body));
  } catch (const llorch::BadJson&) {
  } catch (const llorch::BadField&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto execute = llorch::parse_execute(text);
  if (const auto* reply = std::get_if<Reply>(&execute)) {
    check_refusal(*reply);
  } else {
    check_request(std::get<llorch::ExecuteRequest>(execute));
  }
  const auto cancel = llorch::parse_cancel(text);
  if (const auto* reply = std::get_if<Reply>(&cancel)) check_refusal(*reply);

  check_openai(llorch::parse_completion(text), false);
  check_openai(llorch::parse_chat(text), true);
  check_tool([&] { return llorch::tokenize(tokenizer(), text); });
  check_tool([&] { return llorch::detokenize(tokenizer(), text); });
  check_tool([&] { return llorch::apply_template(templates(), text); });

  const std::string_view path = llorch::path_of(text);
  CHECK(path.empty() || (path[0] == '/' && path.find('?') == path.npos));
  CHECK(llorch::is_uuid(llorch::correlation_id(text)));
  llorch::is_json_media_type(text);
  llorch::percent_decoded(text);
  const auto written = nlohmann::json::parse(llorch::json_string(text));
  if (nlohmann::json::accept("\"" + std::string(text) + "\"") &&
      text.find_first_of("\\\"") == text.npos) {
    CHECK(written.get<std::string>() == text);
  }
  return 0;
}
