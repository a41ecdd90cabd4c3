// Expected texts are those of the contract's table, written out.
#include "server/execute_request.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

namespace llorch {
namespace {

ExecuteRequest accepted(const std::string& body) {
  auto parsed = parse_execute(body);
  if (const Reply* reply = std::get_if<Reply>(&parsed)) {
    ADD_FAILURE() << body.substr(0, 200) << " was refused: " << reply->body;
    return {};
  }
  return std::get<ExecuteRequest>(parsed);
}

Reply refused(const std::string& body) {
  auto parsed = parse_execute(body);
  if (std::holds_alternative<ExecuteRequest>(parsed)) {
    ADD_FAILURE() << body.substr(0, 200) << " was accepted";
    return {};
  }
  return std::get<Reply>(parsed);
}

// A valid body with more members; a later key overrides an earlier one.
std::string body(const std::string& more = "") {
  return R"({"job_id":"j","prompt":"p","max_tokens":5)" + (more.empty() ? "" : "," + more) + "}";
}

void expect_fault(const std::string& more, const std::string& fault) {
  const Reply reply = refused(body(more));
  EXPECT_EQ(reply.status, 400) << more;
  EXPECT_EQ(reply.body, "{\"errors\":[" + fault + "]}") << more;
}

void expect_wrong_type(const std::string& more, const std::string& message) {
  const Reply reply = refused(body(more));
  EXPECT_EQ(reply.status, 422) << more;
  EXPECT_EQ(reply.body,
            R"({"code":"INVALID_FIELD","message":")" + message + R"(","retriable":false})");
}

void expect_no_json(const std::string& text) {
  const Reply reply = refused(text);
  EXPECT_EQ(reply.status, 400) << text.substr(0, 100);
  EXPECT_EQ(reply.body.find(R"({"code":"INVALID_JSON","message":")"), 0U) << reply.body;
}

TEST(ExecuteRequest, HasTheContractsDefaults) {
  const ExecuteRequest r = accepted(body());
  EXPECT_EQ(r.job_id, "j");
  EXPECT_EQ(r.prompt, "p");
  EXPECT_EQ(r.max_tokens, 5U);
  EXPECT_EQ(r.temperature, 1.0F);
  EXPECT_FALSE(r.seed.has_value());
  EXPECT_EQ(r.top_p, 1.0F);
  EXPECT_EQ(r.top_k, 0U);
  EXPECT_EQ(r.repetition_penalty, 1.0F);
  EXPECT_TRUE(r.stop.empty());
  EXPECT_EQ(r.min_p, 0.0F);
  EXPECT_FALSE(r.logprobs.has_value());
  EXPECT_FALSE(r.ignore_eos);
  EXPECT_EQ(r.keepalive.count(), 0);
}

TEST(ExecuteRequest, TakesEveryFieldAtBothEndsOfItsRange) {
  ExecuteRequest r = accepted(body(
      R"("max_tokens":1,"temperature":0,"seed":0,"top_p":0.0,"top_k":0,"repetition_penalty":0,"stop":[],"min_p":0,"logprobs":0,"ignore_eos":false,"keepalive_s":0.01)"));
  EXPECT_EQ(r.max_tokens, 1U);
  EXPECT_EQ(r.temperature, 0.0F);
  EXPECT_EQ(r.seed, 0U);
  EXPECT_EQ(r.top_p, 0.0F);
  EXPECT_EQ(r.repetition_penalty, 0.0F);
  EXPECT_EQ(r.logprobs, 0U);
  EXPECT_EQ(r.keepalive.count(), 10);
  r = accepted(body(
      R"("max_tokens":2048,"temperature":2,"seed":18446744073709551615,"top_p":1,"top_k":4294967295,"repetition_penalty":2.0,"stop":["a","b","c","d"],"min_p":1.0,"logprobs":20,"ignore_eos":true,"keepalive_s":3600)"));
  EXPECT_EQ(r.max_tokens, 2048U);
  EXPECT_EQ(r.temperature, 2.0F);
  EXPECT_EQ(r.seed, 18446744073709551615U);
  EXPECT_EQ(r.top_k, 4294967295U);
  EXPECT_EQ(r.stop.size(), 4U);
  EXPECT_EQ(r.min_p, 1.0F);
  EXPECT_EQ(r.logprobs, 20U);
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_EQ(r.keepalive.count(), 3'600'000);
}

TEST(ExecuteRequest, TakesNullWhereTheTableSaysSo) {
  const ExecuteRequest r = accepted(body(R"("seed":null,"logprobs":null,"keepalive_s":null)"));
  EXPECT_FALSE(r.seed.has_value());
  EXPECT_FALSE(r.logprobs.has_value());
}

TEST(ExecuteRequest, IgnoresUnknownKeysAndTakesTheLastOfTwo) {
  EXPECT_EQ(accepted(body(R"("x":{"job_id":[1,{"max_tokens":0}]},"y":null,"prompt":"q")")).prompt,
            "q");
}

TEST(ExecuteRequest, NamesEachBrokenRule) {
  expect_fault(
      R"("job_id":"")",
      R"({"field":"job_id","constraint":"non_empty","message":"job_id must not be empty","value":""})");
  expect_fault(
      R"("prompt":"")",
      R"j({"field":"prompt","constraint":"length(1..=32768)","message":"prompt must not be empty"})j");
  expect_fault(
      R"("max_tokens":0)",
      R"j({"field":"max_tokens","constraint":"range(1..=2048)","message":"max_tokens must be at least 1","value":"0"})j");
  expect_fault(
      R"("max_tokens":2049)",
      R"j({"field":"max_tokens","constraint":"range(1..=2048)","message":"max_tokens must be at most 2048 (got 2049)","value":"2049"})j");
  expect_fault(
      R"("temperature":-0.1)",
      R"j({"field":"temperature","constraint":"range(0.0..=2.0)","message":"temperature must be at least 0.0 (got -0.1)","value":"-0.1"})j");
  expect_fault(
      R"("temperature":2.1)",
      R"j({"field":"temperature","constraint":"range(0.0..=2.0)","message":"temperature must be at most 2.0 (got 2.1)","value":"2.1"})j");
  expect_fault(
      R"("top_p":-1)",
      R"j({"field":"top_p","constraint":"range(0.0..=1.0)","message":"top_p must be at least 0.0 (got -1)","value":"-1"})j");
  expect_fault(
      R"("top_p":1.5)",
      R"j({"field":"top_p","constraint":"range(0.0..=1.0)","message":"top_p must be at most 1.0 (got 1.5)","value":"1.5"})j");
  expect_fault(
      R"("repetition_penalty":-0.5)",
      R"j({"field":"repetition_penalty","constraint":"range(0.0..=2.0)","message":"repetition_penalty must be at least 0.0 (got -0.5)","value":"-0.5"})j");
  expect_fault(
      R"("repetition_penalty":3.0)",
      R"j({"field":"repetition_penalty","constraint":"range(0.0..=2.0)","message":"repetition_penalty must be at most 2.0 (got 3)","value":"3"})j");
  expect_fault(
      R"("min_p":-0.01)",
      R"j({"field":"min_p","constraint":"range(0.0..=1.0)","message":"min_p must be at least 0.0 (got -0.01)","value":"-0.01"})j");
  expect_fault(
      R"("min_p":1.1)",
      R"j({"field":"min_p","constraint":"range(0.0..=1.0)","message":"min_p must be at most 1.0 (got 1.1)","value":"1.1"})j");
  expect_fault(
      R"("logprobs":21)",
      R"j({"field":"logprobs","constraint":"range(0..=20)","message":"logprobs must be at most 20 (got 21)","value":"21"})j");
  expect_fault(
      R"("keepalive_s":0)",
      R"j({"field":"keepalive_s","constraint":"range(0.01..=3600.0)","message":"keepalive_s must be at least 0.01 (got 0)","value":"0"})j");
}

TEST(ExecuteRequest, ChecksEveryStopSequenceAlsoWhenThereAreTooMany) {
  const std::string long_one(101, 'x'), euros = "\xE2\x82\xAC";
  std::string thirty_four;
  for (int i = 0; i < 34; ++i) thirty_four += euros;  // 102 bytes
  expect_fault(
      R"("stop":["a","","b","c",")" + long_one + R"(",")" + thirty_four + R"("])",
      R"j({"field":"stop","constraint":"max_count(4)","message":"stop must have at most 4 sequences (got 6)","value":"6"},)j"
      R"({"field":"stop[1]","constraint":"non_empty","message":"stop sequence 1 must not be empty"},)"
      R"j({"field":"stop[4]","constraint":"max_length(100)","message":"stop sequence 4 must be at most 100 characters (got 101)"},)j"
      R"j({"field":"stop[5]","constraint":"max_length(100)","message":"stop sequence 5 must be at most 100 characters (got 102)"})j");
  EXPECT_EQ(accepted(body(R"("stop":[")" + std::string(100, 'x') + R"("])")).stop[0].size(), 100U);
}

TEST(ExecuteRequest, CountsThePromptInUnicodeScalars) {
  std::string smile = "\xF0\x9F\x98\x80", prompt;
  for (int i = 0; i < 32768; ++i) prompt += smile;
  EXPECT_EQ(accepted(body("\"prompt\":\"" + prompt + "\"")).prompt.size(), 131072U);
  expect_fault(
      "\"prompt\":\"" + prompt + "a\"",
      R"j({"field":"prompt","constraint":"length(1..=32768)","message":"prompt must be at most 32768 characters (got 32769)"})j");
  EXPECT_EQ(accepted(body(R"("prompt":"\ud83d\ude00\u0000")")).prompt,
            smile + std::string(1, '\0'));
}

TEST(ExecuteRequest, CollectsAllFaultsInTheTablesOrder) {
  const Reply reply = refused(
      R"({"priority":-200,"min_p":2,"stop":["","","","",""],"repetition_penalty":9,"top_k":1,"top_p":2,"seed":1,"temperature":3,"max_tokens":0,"prompt":"","job_id":""})");
  std::string fields;
  for (size_t at = 0; (at = reply.body.find("\"field\":\"", at)) != std::string::npos; ++at) {
    fields += reply.body.substr(at + 9, reply.body.find('"', at + 9) - at - 9) + " ";
  }
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(fields,
            "job_id prompt max_tokens temperature top_p repetition_penalty stop stop[0] stop[1] "
            "stop[2] stop[3] stop[4] min_p priority ");
}

TEST(ExecuteRequest, PrintsFloatsShortestAndWithoutExponent) {
  const auto got = [](const std::string& number) {
    const std::string text = refused(body("\"temperature\":" + number)).body;
    const size_t at = text.find("(got ") + 5;
    return text.substr(at, text.find(')', at) - at);
  };
  EXPECT_EQ(got("3"), "3");
  EXPECT_EQ(got("3.0"), "3");
  EXPECT_EQ(got("2.5"), "2.5");
  EXPECT_EQ(got("2.10"), "2.1");
  EXPECT_EQ(got("100"), "100");
  EXPECT_EQ(got("1e10"), "10000000000");
  EXPECT_EQ(got("1e30"), "1" + std::string(30, '0'));
  EXPECT_EQ(got("-1e-7"), "-0.0000001");
  EXPECT_EQ(got("1e300"), "inf");
  EXPECT_EQ(got("2.00000024"), "2.0000002");
  // The field is an f32: what rounds to 2 is 2.
  EXPECT_EQ(accepted(body(R"("temperature":2.00000001)")).temperature, 2.0F);
  EXPECT_FALSE(std::signbit(accepted(body(R"("temperature":-0.0)")).temperature));
}

TEST(ExecuteRequest, NamesAMissingField) {
  EXPECT_EQ(refused(R"({"prompt":"p","max_tokens":5})").body,
            R"({"code":"INVALID_FIELD","message":"`job_id` is missing","retriable":false})");
  EXPECT_EQ(refused(R"({"job_id":"j","max_tokens":5})").body,
            R"({"code":"INVALID_FIELD","message":"`prompt` is missing","retriable":false})");
  const Reply reply = refused(R"({"job_id":"","prompt":""})");
  EXPECT_EQ(reply.status, 422);
  EXPECT_EQ(reply.body,
            R"({"code":"INVALID_FIELD","message":"`max_tokens` is missing","retriable":false})");
}

TEST(ExecuteRequest, NamesAFieldOfTheWrongType) {
  expect_wrong_type(R"("job_id":1)", "`job_id` must be a string");
  expect_wrong_type(R"("job_id":null)", "`job_id` must be a string");
  expect_wrong_type(R"("prompt":["p"])", "`prompt` must be a string");
  for (const char* value : {"-1", "4294967296", "1.0", "1e2", "\"5\"", "null", "true", "{}"}) {
    const std::string text = value;
    expect_wrong_type("\"max_tokens\":" + text,
                      "`max_tokens` must be an integer from 0 to 4294967295");
  }
  expect_wrong_type(R"("top_k":-1)", "`top_k` must be an integer from 0 to 4294967295");
  for (const char* field : {"temperature", "top_p", "repetition_penalty", "min_p"}) {
    const std::string name = field;
    expect_wrong_type("\"" + name + "\":\"1\"", "`" + name + "` must be a number");
    expect_wrong_type("\"" + name + "\":null", "`" + name + "` must be a number");
  }
  for (const char* value : {"-1", "1.5", "18446744073709551616", "\"1\""}) {
    expect_wrong_type("\"seed\":" + std::string(value),
                      "`seed` must be an integer from 0 to 18446744073709551615, or null");
  }
  expect_wrong_type(R"("stop":"a")", "`stop` must be an array of strings");
  expect_wrong_type(R"("stop":null)", "`stop` must be an array of strings");
  expect_wrong_type(R"("stop":["a",1])", "`stop[1]` must be a string");
  expect_wrong_type(R"("logprobs":true)", "`logprobs` must be an integer from 0 to 4294967295");
  expect_wrong_type(R"("ignore_eos":0)", "`ignore_eos` must be true or false");
  expect_wrong_type(R"("stream_resume":1)", "`stream_resume` must be true or false");
  expect_wrong_type(R"("keepalive_s":"1")", "`keepalive_s` must be a number");
  for (const char* value : {"1.5", "\"1\"", "true", "null", "9223372036854775808"}) {
    expect_wrong_type(std::string("\"priority\":") + value, "`priority` must be an integer");
  }
  EXPECT_EQ(
      refused("[]").body,
      R"({"code":"INVALID_FIELD","message":"the body must be a JSON object","retriable":false})");
}

TEST(ExecuteRequest, AFingerprintTellsBodiesApartByWhatTheyAsk) {
  const auto fingerprint = [](const std::string& text) { return fingerprint_of(accepted(text)); };
  const std::string plain = fingerprint(body());
  EXPECT_FALSE(plain.empty());
  for (const char* same :
       {R"("seed":null)", R"("temperature":1.0)", R"("temperature":1e0,"top_p":1)",
        R"("x":{"y":1},"logprobs":null)", R"("keepalive_s":null,"stream_resume":false)",
        R"("stop":[])", R"("job_id":"another")"}) {
    EXPECT_EQ(fingerprint(body(same)), plain) << same;
  }
  std::set<std::string> all = {plain};
  const std::vector<std::string> others = {R"("prompt":"other")",
                                           R"("max_tokens":3)",
                                           R"("temperature":0.5)",
                                           R"("seed":0)",
                                           R"("seed":1)",
                                           R"("top_p":0.5)",
                                           R"("min_p":0.5)",
                                           R"("top_k":1)",
                                           R"("repetition_penalty":0.5)",
                                           R"("logprobs":0)",
                                           R"("logprobs":1)",
                                           R"("stop":["a"])",
                                           R"("stop":["a","b"])",
                                           R"("stop":["b","a"])",
                                           R"("stop":["a b"])",
                                           R"("stop":["a\" \"b"])",
                                           R"("ignore_eos":true)",
                                           R"("priority":1)",
                                           R"("priority":-1)",
                                           R"("keepalive_s":1)",
                                           R"("keepalive_s":0.5)",
                                           R"("stream_resume":true)"};
  for (const std::string& other : others) {
    EXPECT_TRUE(all.insert(fingerprint(body(other))).second) << other;
  }
}

TEST(ExecuteRequest, RefusesWhatIsNoJson) {
  for (const char* text : {"", " ", "{", "{}}", "{\"job_id\":}", "{'job_id':'j'}", "[1,]", "nul",
                           "{\"a\":NaN}", "{\"a\":1e999}", "{\"a\":01}", "{\"a\":\"\\ud800\"}",
                           "{\"a\":\"\xFF\"}", "{\"\xC3\x28\":1}", "{\"a\":\"\x01\"}"}) {
    expect_no_json(text);
  }
  expect_no_json(std::string("{}\0", 3));
}

TEST(ExecuteRequest, BoundsTheDepthOfJson) {
  const auto nested = [](size_t depth) {
    return "\"x\":" + std::string(depth, '[') + std::string(depth, ']');
  };
  accepted(body(nested(63)));
  expect_no_json(body(nested(64)));
  expect_no_json(std::string(1'000'000, '['));
  expect_no_json("{\"a\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}");
}

TEST(ExecuteRequest, RefusesALengthBeyondTheContext) {
  EXPECT_FALSE(check_length(1, 7, 8).has_value());
  EXPECT_EQ(
      check_length(2, 7, 8)->body,
      R"j({"errors":[{"field":"prompt","constraint":"context_length(8)","message":"prompt has 2 tokens and max_tokens is 7; the context is 8"}]})j");
  EXPECT_EQ(
      check_length(0, 7, 8)->body,
      R"j({"errors":[{"field":"prompt","constraint":"tokens(1..)","message":"prompt must have at least one token"}]})j");
  EXPECT_EQ(check_length(2, 7, 8)->status, 400);
}

TEST(CancelRequest, WantsAJobId) {
  EXPECT_EQ(std::get<std::string>(parse_cancel(R"({"job_id":"a","x":1})")), "a");
  EXPECT_EQ(std::get<Reply>(parse_cancel("{}")).body,
            R"({"code":"INVALID_FIELD","message":"`job_id` is missing","retriable":false})");
  EXPECT_EQ(std::get<Reply>(parse_cancel("{")).status, 400);
}

TEST(Refusal, HasCodeMessageAndRetriableInThisOrder) {
  const Reply reply = refuse(Refusal::kOverloaded, "a \"full\" queue");
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.body, R"({"code":"OVERLOADED","message":"a \"full\" queue","retriable":true})");
  EXPECT_GT(reply.retry_after_s, 0);
  EXPECT_EQ(refuse(Refusal::kLoading, "").status, 503);
  EXPECT_EQ(refuse(Refusal::kJobConflict, "").status, 409);
  EXPECT_EQ(refuse(Refusal::kHeadersTooLarge, "").status, 431);
}

}  // namespace
}  // namespace llorch
