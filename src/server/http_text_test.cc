#include "server/http_text.h"

#include <gtest/gtest.h>

#include "base/config.h"

namespace llorch {
namespace {

constexpr char kId[] = "00000000-0000-4000-8000-000000000000";

TEST(HttpText, WritesAWholeAnswer) {
  Reply reply = refuse(Refusal::kOverloaded, "full");
  EXPECT_EQ(answer(reply, kId, {}),
            "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
            "content-length: 55\r\nretry-after: 1\r\n"
            "x-correlation-id: 00000000-0000-4000-8000-000000000000\r\n\r\n"
            "{\"code\":\"OVERLOADED\",\"message\":\"full\",\"retriable\":true}");
}

TEST(HttpText, SaysWhatBecomesOfTheConnection) {
  Reply reply;
  reply.body = "{}";
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_FALSE(has(answer(reply, kId, {}), "connection:"));
  EXPECT_TRUE(has(answer(reply, kId, {.keep_alive = false}), "connection: close\r\n"));
  EXPECT_TRUE(has(answer(reply, kId, {.http_1_1 = false}), "connection: keep-alive\r\n"));
  reply.close = true;
  EXPECT_TRUE(has(answer(reply, kId, {}), "connection: close\r\n"));
  EXPECT_TRUE(has(stream_head(kId, {}), "transfer-encoding: chunked\r\n"));
  EXPECT_FALSE(has(stream_head(kId, {}), "connection:"));
  EXPECT_FALSE(has(stream_head(kId, {.http_1_1 = false}), "chunked"));
  EXPECT_TRUE(has(stream_head(kId, {.http_1_1 = false}), "connection: close\r\n"));
}

TEST(HttpText, AnswersHeadWithoutTheBody) {
  Reply reply;
  reply.body = "{\"a\":1}";
  const std::string text = answer(reply, kId, {.head_only = true});
  EXPECT_NE(text.find("content-length: 7\r\n"), std::string::npos);
  EXPECT_TRUE(text.ends_with("\r\n\r\n"));
}

TEST(HttpText, FramesChunksInHex) {
  EXPECT_EQ(chunk_head(3), "3\r\n");
  EXPECT_EQ(chunk_head(255), "ff\r\n");
}

TEST(HttpText, KeepsACorrelationIdOnlyIfItIsAUuid) {
  const std::string own = "123E4567-e89b-12d3-a456-426614174000";
  EXPECT_EQ(correlation_id(own), own);
  EXPECT_EQ(correlation_id(" " + own + "\t"), own);
  for (const std::string& bad :
       {std::string(), own + "0", own.substr(1), std::string("{") + own + "}",
        std::string("123E4567e89b12d3a456426614174000"),
        std::string("123g4567-e89b-12d3-a456-426614174000")}) {
    EXPECT_NE(correlation_id(bad), bad);
    EXPECT_TRUE(is_uuid(correlation_id(bad)));
  }
}

TEST(HttpText, TakesJsonMediaTypesOfAnySpelling) {
  for (const char* good : {"application/json", "Application/JSON", "application/json;charset=utf-8",
                           " application/json ; charset=\"x\""}) {
    EXPECT_TRUE(is_json_media_type(good)) << good;
  }
  for (const char* bad : {"", "text/json", "application/jsonp", "application/json+x", "json",
                          "text/plain;application/json"}) {
    EXPECT_FALSE(is_json_media_type(bad)) << bad;
  }
}

TEST(HttpText, FindsThePathInATarget) {
  EXPECT_EQ(path_of("/health"), "/health");
  EXPECT_EQ(path_of("/health?x=/y#z"), "/health");
  EXPECT_EQ(path_of("http://host:1/health?x"), "/health");
  EXPECT_EQ(path_of("http://host"), "/");
  EXPECT_EQ(path_of("/a?u=http://host/b"), "/a");
  EXPECT_EQ(path_of("*"), "");
  EXPECT_EQ(path_of("host:80"), "");
  EXPECT_EQ(path_of(""), "");
}

TEST(PercentDecoded, TurnsEscapesIntoBytesAndKeepsTheRest) {
  EXPECT_EQ(percent_decoded("a%2Fb%c3%A9"), "a/b\xC3\xA9");
  for (const char* same : {"", "%", "%4", "%zz", "100%", "a+b", "%-1"}) {
    EXPECT_EQ(percent_decoded(same), same);
  }
}

}  // namespace
}  // namespace llorch
