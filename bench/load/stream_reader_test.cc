#include "load/stream_reader.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace llorch::bench {
namespace {

// As the contract has them.
const char* const kExecuteStream =
    "data: {\"type\":\"started\",\"job_id\":\"1\",\"model\":\"m\",\"started_at\":\"x\",\"seed\":1,"
    "\"prompt_tokens\":9,\"cached_tokens\":4}\n\n"
    "data: {\"type\":\"token\",\"t\":\"An\\n\",\"i\":0}\n\n"
    ": keep-alive\n\n"
    "id: 7\ndata: {\"type\":\"token\",\"t\":\"na\",\"i\":1}\n\n"
    "data: {\"type\":\"metrics\",\"tokens_per_sec\":1,\"vram_bytes\":2}\n\n"
    "data: {\"type\":\"end\",\"tokens_out\":3,\"decode_time_ms\":1,\"stop_reason\":\"EOS\"}\n\n";

// As OpenAI's API has them; the last one with usage has no choices.
const char* const kOpenAiStream =
    "data: {\"id\":\"c\",\"choices\":[{\"text\":\"An\",\"index\":0,\"finish_reason\":null}],"
    "\"usage\":null}\r\n\r\n"
    "data: {\"id\":\"c\",\"choices\":[{\"text\":\"na\",\"index\":0,\"finish_reason\":null}]}\n\n"
    "data: {\"id\":\"c\",\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,"
    "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"
    "data: [DONE]\n\n";

void expect_read(const StreamReader& reader, const std::string& text) {
  EXPECT_TRUE(reader.ended());
  EXPECT_EQ(reader.error(), "");
  EXPECT_EQ(reader.text(), text);
  EXPECT_EQ(reader.prompt_tokens(), 9);
  EXPECT_EQ(reader.cached_tokens(), 4);
  EXPECT_EQ(reader.tokens_out(), 3);
}

TEST(StreamReader, ReadsExecute) {
  StreamReader reader(Api::kExecute, true), without_text(Api::kExecute, false);
  EXPECT_EQ(reader.feed(kExecuteStream), 2);
  expect_read(reader, "An\nna");
  EXPECT_EQ(without_text.feed(kExecuteStream), 2);
  expect_read(without_text, "");
}

TEST(StreamReader, ReadsOpenAi) {
  StreamReader reader(Api::kOpenAi, true);
  EXPECT_EQ(reader.feed(kOpenAiStream), 2);
  expect_read(reader, "Anna");
}

TEST(StreamReader, BytesMayBeCutAnywhere) {
  for (const Api api : {Api::kExecute, Api::kOpenAi}) {
    const std::string_view stream = api == Api::kExecute ? kExecuteStream : kOpenAiStream;
    for (size_t step = 1; step < 40; ++step) {
      StreamReader reader(api, true);
      int tokens = 0;
      for (size_t at = 0; at < stream.size(); at += step)
        tokens += reader.feed(stream.substr(at, step));
      EXPECT_EQ(tokens, 2);
      expect_read(reader, api == Api::kExecute ? "An\nna" : "Anna");
    }
  }
}

TEST(StreamReader, AnErrorIsAnEndToo) {
  StreamReader execute(Api::kExecute, false), openai(Api::kOpenAi, false),
      number(Api::kOpenAi, false);
  execute.feed("data: {\"type\":\"error\",\"code\":\"TIMEOUT\",\"message\":\"x\"}\n\n");
  openai.feed("data: {\"error\":{\"message\":\"x\",\"code\":\"timeout\"}}\n\ndata: [DONE]\n\n");
  number.feed("data: {\"error\":{\"message\":\"x\",\"code\":500}}\n\n");
  EXPECT_TRUE(execute.ended() && openai.ended() && number.ended());
  EXPECT_EQ(execute.error(), "TIMEOUT");
  EXPECT_EQ(openai.error(), "timeout");
  EXPECT_EQ(number.error(), "500");
}

TEST(StreamReader, AStreamThatStopsHasNotEnded) {
  StreamReader reader(Api::kExecute, false);
  const std::string_view stream = kExecuteStream;
  reader.feed(stream.substr(0, stream.rfind("data:")));
  EXPECT_FALSE(reader.ended());
}

TEST(StreamReader, WhatIsNoStreamIsRefused) {
  EXPECT_THROW(StreamReader(Api::kExecute, false).feed("data: nonsense\n\n"), std::runtime_error);
  EXPECT_THROW(StreamReader(Api::kExecute, false).feed("data: {\"type\":\"end\"}\n\n"),
               std::runtime_error);
  EXPECT_THROW(StreamReader(Api::kOpenAi, false).feed("data: {\"choices\":[3]}\n\n"),
               std::runtime_error);
  StreamReader twice(Api::kExecute, false);
  twice.feed(kExecuteStream);
  EXPECT_THROW(twice.feed(kExecuteStream), std::runtime_error);
}

}  // namespace
}  // namespace llorch::bench
