// Fields, defaults and limits are those of OpenAI's published API reference; tests/contract goes
// through the refusals one by one.
#include "server/openai_request.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "server/json_fields.h"
#include "server/json_text.h"

namespace llorch {
namespace {

using Parse = std::variant<OpenAiRequest, OpenAiError> (*)(std::string_view);

OpenAiRequest accepted(Parse parse, const std::string& body) {
  auto parsed = parse(body);
  if (const auto* error = std::get_if<OpenAiError>(&parsed)) {
    ADD_FAILURE() << body.substr(0, 200) << " was refused: " << error->message;
    return {};
  }
  return std::get<OpenAiRequest>(parsed);
}

// "code param"
std::string refused(Parse parse, const std::string& body) {
  auto parsed = parse(body);
  const auto* error = std::get_if<OpenAiError>(&parsed);
  if (!error) return "accepted";
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->type, "invalid_request_error");
  return error->code.value_or("null") + " " + error->param.value_or("null");
}

std::string completion(const std::string& more = "") {
  return R"({"model":"m","prompt":"p")" + more + "}";
}
std::string chat(const std::string& messages, const std::string& more = "") {
  return R"({"model":"m","messages":)" + messages + more + "}";
}
constexpr char kUser[] = R"([{"role":"user","content":"hi"}])";

TEST(OpenAiRequest, HasTheDocumentedDefaults) {
  for (const OpenAiRequest& r :
       {accepted(parse_completion, completion()), accepted(parse_chat, chat(kUser))}) {
    EXPECT_EQ(r.model, "m");
    EXPECT_EQ(r.temperature, 1);
    EXPECT_EQ(r.top_p, 1);
    EXPECT_EQ(r.min_p, 0);
    EXPECT_EQ(r.top_k, 0U);
    EXPECT_EQ(r.priority, 0);
    EXPECT_EQ(r.repetition_penalty, 1);
    EXPECT_FALSE(r.seed || r.max_tokens || r.logprobs);
    EXPECT_FALSE(r.stream || r.include_usage || r.echo || r.ignore_eos);
    EXPECT_TRUE(r.stop.empty());
    EXPECT_TRUE(r.conversation.add_generation_prompt);
  }
}

TEST(OpenAiRequest, ReadsEveryField) {
  const OpenAiRequest r = accepted(
      parse_chat,
      chat(kUser, R"(,"max_completion_tokens":5,"temperature":0.5,"top_p":0.25,"seed":-1,"top_k":7,
                     "min_p":0.125,"repetition_penalty":1.5,"stop":"x","logprobs":true,
                     "top_logprobs":3,"stream":true,"stream_options":{"include_usage":true},
                     "ignore_eos":true,"priority":-7,"add_generation_prompt":false,
                     "chat_template_kwargs":{"b":1,"a":2})"));
  EXPECT_EQ(r.max_tokens, 5U);
  EXPECT_EQ(r.temperature, 0.5F);
  EXPECT_EQ(r.top_p, 0.25F);
  EXPECT_EQ(r.seed, 18446744073709551615U);
  EXPECT_EQ(r.top_k, 7U);
  EXPECT_EQ(r.priority, -7);
  EXPECT_EQ(r.min_p, 0.125F);
  EXPECT_EQ(r.repetition_penalty, 1.5F);
  EXPECT_EQ(r.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(r.logprobs, 3U);
  EXPECT_TRUE(r.stream && r.include_usage && r.ignore_eos);
  EXPECT_FALSE(r.conversation.add_generation_prompt);
  EXPECT_EQ(r.conversation.kwargs, R"({"b":1,"a":2})");
}

TEST(OpenAiRequest, KeepsTheOrderOfAMessageAndDropsWhatSaysNothing) {
  const OpenAiRequest r = accepted(parse_chat, chat(R"([{"name":"n","content":"a","role":"system"},
               {"role":"assistant","tool_calls":null,"refusal":null,"annotations":[],
                "content":[{"type":"text","text":"b"},{"text":"c","type":"text"}],
                "reasoning_content":"r"}])"));
  EXPECT_EQ(r.conversation.messages,
            R"([{"name":"n","content":"a","role":"system"},)"
            R"({"role":"assistant","content":"b\nc","reasoning_content":"r"}])");
}

TEST(OpenAiRequest, TakesAPromptAsTextOrTokens) {
  const auto prompt = [](const std::string& json) {
    return accepted(parse_completion, R"({"model":"m","prompt":)" + json + "}").prompt;
  };
  EXPECT_EQ(std::get<0>(prompt(R"("a\u00e9")")), "a\xC3\xA9");
  EXPECT_EQ(std::get<0>(prompt(R"(["b"])")), "b");
  EXPECT_EQ(std::get<0>(prompt(R"("")")), "");
  EXPECT_EQ(std::get<1>(prompt("[1,2]")), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(std::get<1>(prompt("[[2147483647]]")), std::vector<int32_t>{2147483647});
  EXPECT_EQ(refused(parse_completion, R"({"model":"m","prompt":[2147483648]})"),
            "invalid_type prompt[0]");
  EXPECT_EQ(refused(parse_completion, R"({"model":"m","prompt":[[[1]]]})"),
            "invalid_type prompt[0]");
}

TEST(OpenAiRequest, TakesNullForAbsent) {
  for (const char* field : {"max_tokens", "temperature", "top_p", "seed", "stop", "logprobs", "n",
                            "stream", "stream_options", "user", "top_k", "logit_bias"}) {
    const std::string more = std::string(",\"") + field + "\":null";
    EXPECT_EQ(refused(parse_completion, completion(more)), "accepted") << field;
    EXPECT_EQ(refused(parse_chat, chat(kUser, more)), "accepted") << field;
  }
  EXPECT_EQ(refused(parse_completion, R"({"model":null,"prompt":"p"})"),
            "missing_required_parameter model");
}

TEST(OpenAiRequest, CutsWhatItRepeatsOfAClient) {
  const std::string key(100'000, 'k');
  const auto parsed = parse_completion(completion(",\"" + key + "\":1"));
  EXPECT_LT(std::get<OpenAiError>(parsed).message.size(), 300U);
  const auto role = parse_chat(chat(R"([{"role":")" + key + R"(","content":"x"}])"));
  EXPECT_LT(std::get<OpenAiError>(role).message.size(), 300U);
  std::string wide = "k";
  for (int i = 0; i < 200; ++i) wide += "\xC3\xA9";
  const auto cut = parse_completion(completion(",\"" + wide + "\":1"));
  EXPECT_TRUE(is_utf8(std::get<OpenAiError>(cut).message));
  EXPECT_TRUE(is_utf8(*std::get<OpenAiError>(cut).param));
}

TEST(OpenAiRequest, BoundsWhatABodyCanHold) {
  EXPECT_EQ(refused(parse_chat, chat(std::string(200, '['))), "null null");
  std::string keys = R"([{"role":"user","content":"a")";
  for (int i = 0; i < 2000; ++i) keys += ",\"" + std::to_string(i) + "\":1";
  EXPECT_EQ(refused(parse_chat, chat(keys + "}]")), "null null");
  std::string values = "[1";
  for (int i = 0; i < (1 << 20); ++i) values += ",1";
  EXPECT_EQ(refused(parse_completion, R"({"model":"m","prompt":)" + values + "]}"), "null null");
  EXPECT_EQ(refused(parse_completion, completion(",\"stop\":\"" + std::string(4097, 's') + "\"")),
            "string_above_max_length stop");
}

TEST(ParseObject, TakesLinearTime) {
  constexpr std::string_view kKnown[] = {"a"};
  std::string many = "{}";
  for (int i = 0; i < 400'000; ++i) many += ",{}";
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_object("{\"a\":[" + many + "]}", kKnown).root["a"].size(), 400'001U);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));  // else hours
}

TEST(ParseObject, SaysWhichKeyIsNotKnown) {
  constexpr std::string_view kKnown[] = {"a"};
  std::string unknown;
  EXPECT_EQ(parse_object(R"({"a":{"b":1}})", kKnown, &unknown).root.size(), 1U);
  EXPECT_EQ(unknown, "");
  EXPECT_EQ(parse_object(R"({"x":{"a":1},"a":1,"y":2})", kKnown, &unknown).root.size(), 1U);
  EXPECT_EQ(unknown, "x");
}

}  // namespace
}  // namespace llorch
