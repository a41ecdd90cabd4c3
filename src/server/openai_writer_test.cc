// Expected JSON is written after OpenAI's published API reference: the objects "Completion", "Chat
// completion", "Chat completion chunk", and the rules of each field.
#include "server/openai_writer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/openai_error.h"
#include "tokenizer/testing.h"

namespace llorch {
namespace {

using nlohmann::json;

const Tokenizer& tokenizer() {
  // Ids 0 to 255 are bytes, 256 "ab", 257 the special <e>.
  static const Tokenizer kTokenizer = [] {
    json file = byte_level_json({"ab"});
    file["added_tokens"].push_back(added_token_json(257, "<e>"));
    return tokenizer_of(file);
  }();
  return kTokenizer;
}

CompletionFacts facts(bool chat) {
  return {.chat = chat,
          .id = "id-1",
          .model = "m \"1\"",
          .fingerprint = "fp_1",
          .created = 17,
          .echo = {},
          .tokenizer = &tokenizer()};
}

// With the second of two bytes of U+00E9 missing until the third token.
std::vector<Event> events() {
  return {StartedEvent{{}, 5, 2},
          TokenEvent{"ab", 256, -0.5F, {{256, -0.5F}, {'x', -1.5F}}},
          MetricsEvent{},
          TokenEvent{"", 0xC3, -2.0F, {{'x', -0.25F}, {257, -3.0F}}},
          TokenEvent{"\xC3\xA9", 0xA9, -1.0F, {{0xA9, -1.0F}}},
          EndEvent{StopReason::kEos, {}, 3, {}}};
}

std::string written(EventWriter& writer, const std::vector<Event>& all) {
  std::string text;
  for (const Event& event : all) text += writer.write(event);
  return text;
}

// Of a stream; the last line is [DONE].
std::vector<json> chunks(const std::string& text) {
  std::vector<json> all;
  size_t at = 0;
  for (size_t end = 0; (end = text.find("\n\n", at)) != text.npos; at = end + 2) {
    EXPECT_EQ(text.substr(at, 6), "data: ");
    const std::string line = text.substr(at + 6, end - at - 6);
    all.push_back(line == "[DONE]" ? json(line) : json::parse(line));
  }
  EXPECT_EQ(at, text.size());
  return all;
}

const json kUsage = json::parse(R"({"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,
                                    "prompt_tokens_details":{"cached_tokens":2}})");

TEST(WholeWriter, WritesACompletion) {
  CompletionFacts f = facts(false);
  f.echo = "say: ";
  const auto writer = whole_writer(f);
  EXPECT_FALSE(writer->streams());
  EXPECT_EQ(json::parse(written(*writer, events())),
            json::parse(R"({"id":"id-1","object":"text_completion","created":17,"model":"m \"1\"",
              "system_fingerprint":"fp_1","usage":)" +
                        kUsage.dump() +
                        R"(,"choices":[{"index":0,"text":"say: abé","logprobs":null,
              "finish_reason":"stop"}]})"));
  EXPECT_EQ(writer->status(), 200);
}

TEST(WholeWriter, WritesAChat) {
  const auto writer = whole_writer(facts(true));
  EXPECT_EQ(json::parse(written(*writer, events())),
            json::parse(R"({"id":"id-1","object":"chat.completion","created":17,"model":"m \"1\"",
              "service_tier":"default","system_fingerprint":"fp_1","usage":)" +
                        kUsage.dump() +
                        R"(,"choices":[{"index":0,"message":{"role":"assistant","content":"abé",
              "refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}]})"));
}

TEST(OpenAiWriters, AddTheEnergyToTheUsageIfThereIsAMeter) {
  std::vector<Event> all = events();
  std::get<EndEvent>(all.back()).energy_j = 1234.5678;
  json usage = kUsage;
  usage["energy_j"] = 1235;
  CompletionFacts f = facts(false);
  f.include_usage = true;
  EXPECT_EQ(json::parse(written(*whole_writer(f), all))["usage"], usage);
  const std::vector<json> got = chunks(written(*chunk_writer(f), all));
  EXPECT_EQ(got.at(got.size() - 2).at("usage"), usage);
}

// "There may be up to logprobs+1 elements": the chosen token is always there. Offsets count
// characters of the text; a token that ends a character stands where the character does.
TEST(WholeWriter, WritesTheLogprobsOfACompletion) {
  CompletionFacts f = facts(false);
  f.logprobs = true;
  const auto writer = whole_writer(f);
  const json answer = json::parse(written(*writer, events()));
  EXPECT_EQ(answer["choices"][0]["logprobs"], json::parse(R"({
    "tokens":["ab","bytes:\\xc3","bytes:\\xa9"],
    "token_logprobs":[-0.5,-2.0,-1.0],
    "top_logprobs":[{"ab":-0.5,"x":-1.5},{"x":-0.25,"<e>":-3.0,"bytes:\\xc3":-2.0},
                    {"bytes:\\xa9":-1.0}],
    "text_offset":[0,2,3]})"));
}

const char kChatLogprobs[] = R"([
    {"token":"ab","logprob":-0.5,"bytes":[97,98],"top_logprobs":[
      {"token":"ab","logprob":-0.5,"bytes":[97,98]},{"token":"x","logprob":-1.5,"bytes":[120]}]},
    {"token":"\\xc3","logprob":-2.0,"bytes":[195],"top_logprobs":[
      {"token":"x","logprob":-0.25,"bytes":[120]},
      {"token":"<e>","logprob":-3.0,"bytes":[60,101,62]}]},
    {"token":"\\xa9","logprob":-1.0,"bytes":[169],"top_logprobs":[
      {"token":"\\xa9","logprob":-1.0,"bytes":[169]}]}])";

TEST(WholeWriter, WritesTheLogprobsOfAChat) {
  CompletionFacts f = facts(true);
  f.logprobs = true;
  const auto writer = whole_writer(f);
  const json answer = json::parse(written(*writer, events()));
  EXPECT_EQ(answer["choices"][0]["logprobs"]["content"], json::parse(kChatLogprobs));
  EXPECT_EQ(answer["choices"][0]["logprobs"]["refusal"], nullptr);
}

TEST(ChunkWriter, WritesAChat) {
  const auto writer = chunk_writer(facts(true));
  EXPECT_TRUE(writer->streams());
  std::vector<Event> plain = events();
  for (Event& event : plain) {
    if (auto* token = std::get_if<TokenEvent>(&event)) token->logprob.reset();
  }
  std::erase_if(plain, [](const Event& e) {
    const auto* token = std::get_if<TokenEvent>(&e);
    return token && token->text.empty();
  });
  const std::vector<json> got = chunks(written(*writer, plain));
  const char* const deltas[] = {R"({"role":"assistant","content":"","refusal":null})",
                                R"({"content":"ab"})", R"({"content":"é"})", "{}"};
  ASSERT_EQ(got.size(), 5U);
  for (size_t i = 0; i < 4; ++i) {
    json want = json::parse(R"({"id":"id-1","object":"chat.completion.chunk","created":17,
      "model":"m \"1\"","service_tier":"default","system_fingerprint":"fp_1",
      "choices":[{"index":0,"logprobs":null,"finish_reason":null}]})");
    want["choices"][0]["delta"] = json::parse(deltas[i]);
    if (i == 3) want["choices"][0]["finish_reason"] = "stop";
    EXPECT_EQ(got[i], want);
  }
  EXPECT_EQ(got[4], "[DONE]");
}

TEST(ChunkWriter, WritesUsageAtTheEndIfAsked) {
  CompletionFacts f = facts(false);
  f.include_usage = true;
  const auto writer = chunk_writer(f);
  const std::vector<json> got = chunks(written(*writer, events()));
  ASSERT_EQ(got.size(), 6U);  // three tokens, the reason, usage, [DONE]
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(got[i].at("usage"), nullptr);
    EXPECT_EQ(got[i].at("object"), "text_completion");
  }
  EXPECT_EQ(got[4].at("usage"), kUsage);
  EXPECT_EQ(got[4].at("choices"), json::array());
}

TEST(ChunkWriter, WritesTheLogprobsOfEachToken) {
  for (const bool chat : {true, false}) {
    CompletionFacts f = facts(chat);
    f.logprobs = true;
    const auto writer = chunk_writer(f);
    json content = json::array(), offsets = json::array();
    for (const json& chunk : chunks(written(*writer, events()))) {
      if (!chunk.is_object() || chunk["choices"][0]["logprobs"].is_null()) continue;
      const json& logprobs = chunk["choices"][0]["logprobs"];
      if (chat) {
        content.push_back(logprobs["content"].at(0));
        EXPECT_EQ(logprobs["content"].size(), 1U);
      } else {
        offsets.push_back(logprobs["text_offset"].at(0));
      }
    }
    if (chat) {
      EXPECT_EQ(content, json::parse(kChatLogprobs));
    } else {
      EXPECT_EQ(offsets, json::parse("[0,2,3]"));
    }
  }
}

TEST(ChunkWriter, WritesTheEchoFirst) {
  CompletionFacts f = facts(false);
  f.echo = "say: ";
  const auto writer = chunk_writer(f);
  EXPECT_EQ(chunks(writer->write(StartedEvent{}))[0]["choices"][0]["text"], "say: ");
}

TEST(OpenAiWriters, NameTheReasonOfTheEnd) {
  const auto reason = [](StopReason why) {
    const auto writer = whole_writer(facts(true));
    return json::parse(writer->write(EndEvent{why, {}, 1, {}}))["choices"][0]["finish_reason"];
  };
  EXPECT_EQ(reason(StopReason::kEos), "stop");
  EXPECT_EQ(reason(StopReason::kStopSequence), "stop");
  EXPECT_EQ(reason(StopReason::kMaxTokens), "length");
}

TEST(OpenAiWriters, WriteAFailureAsAnError) {
  struct Case {
    FailedEvent event;
    int status;
    const char* code;
  };
  for (const Case& c : {Case{{"CANCELLED", "why", false}, 400, "cancelled"},
                        Case{{"CANCELLED", "why", true}, 503, "cancelled"},
                        Case{{"TIMEOUT", "why", true}, 503, "timeout"},
                        Case{{"INFERENCE_FAILED", "why", true}, 500, "inference_failed"}}) {
    const json want = {
        {"error",
         {{"message", "why"}, {"type", "server_error"}, {"param", nullptr}, {"code", c.code}}}};
    const auto whole = whole_writer(facts(true));
    EXPECT_EQ(json::parse(whole->write(c.event)), want);
    EXPECT_EQ(whole->status(), c.status);
    const auto chunk = chunk_writer(facts(true));
    EXPECT_EQ(chunks(chunk->write(c.event)), std::vector<json>{want});
  }
}

TEST(OpenAiError, SaysTheServersRefusals) {
  const Reply reply = in_openai_form(refuse(Refusal::kOverloaded, "full"));
  EXPECT_EQ(reply.status, 429);
  EXPECT_GT(reply.retry_after_s, 0);
  EXPECT_EQ(json::parse(reply.body)["error"]["code"], "rate_limit_exceeded");
  EXPECT_EQ(in_openai_form(refuse(Refusal::kInvalidField, "x")).status, 400);
  EXPECT_TRUE(is_openai_path("/v1") && is_openai_path("/v1/x") && !is_openai_path("/v10"));
}

}  // namespace
}  // namespace llorch
