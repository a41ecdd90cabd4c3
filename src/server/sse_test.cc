// Expected bytes are written after the contract's event table.
#include "server/sse.h"

#include <gtest/gtest.h>

#include <limits>

#include "server/json_text.h"

namespace llorch {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::system_clock;

SseWriter writer() { return SseWriter({"job \"1\"", "tiny", 1234567}); }

TEST(SseWriter, WritesStartedWithItsFieldsInOrder) {
  StartedEvent e{system_clock::time_point(microseconds(1738324800000001)), 7, 3,
                 18446744073709551615U};
  EXPECT_EQ(writer().write(e),
            "data: {\"type\":\"started\",\"job_id\":\"job \\\"1\\\"\",\"model\":\"tiny\","
            "\"started_at\":\"2025-01-31T12:00:00.000001Z\",\"seed\":18446744073709551615,"
            "\"prompt_tokens\":7,\"cached_tokens\":3}\n\n");
}

TEST(SseWriter, WritesTokensWithTheirNumber) {
  EXPECT_EQ(writer().write(TokenEvent{"a", 5, {}, {}, 0}),
            "data: {\"type\":\"token\",\"t\":\"a\",\"i\":0}\n\n");
  EXPECT_EQ(writer().write(TokenEvent{"\n\xC3\xA9", 6, {}, {}, 4294967295}),
            "data: {\"type\":\"token\",\"t\":\"\\n\xC3\xA9\",\"i\":4294967295}\n\n");
}

TEST(SseWriter, AddsLogprobsIfTheyAreThere) {
  EXPECT_EQ(writer().write(TokenEvent{"", 9, -0.5F, {}}),
            "data: {\"type\":\"token\",\"t\":\"\",\"i\":0,\"id\":9,\"logprob\":-0.5}\n\n");
  EXPECT_EQ(writer().write(TokenEvent{"b", 9, -0.25F, {{9, -0.25F}, {3, -1.1F}}}),
            "data: {\"type\":\"token\",\"t\":\"b\",\"i\":0,\"id\":9,\"logprob\":-0.25,"
            "\"top_logprobs\":[{\"id\":9,\"logprob\":-0.25},{\"id\":3,\"logprob\":-1.1}]}\n\n");
}

TEST(SseWriter, WritesMetrics) {
  EXPECT_EQ(writer().write(MetricsEvent{12.5F}),
            "data: {\"type\":\"metrics\",\"tokens_per_sec\":12.5,\"vram_bytes\":1234567}\n\n");
}

TEST(SseWriter, WritesEndWithTheStopSequenceOnlyWhenOneMatched) {
  EXPECT_EQ(writer().write(EndEvent{StopReason::kMaxTokens, {}, 5, milliseconds(40)}),
            "data: {\"type\":\"end\",\"tokens_out\":5,\"decode_time_ms\":40,"
            "\"stop_reason\":\"MAX_TOKENS\"}\n\n");
  EXPECT_EQ(writer().write(EndEvent{StopReason::kEos, {}, 0, milliseconds(0)}),
            "data: {\"type\":\"end\",\"tokens_out\":0,\"decode_time_ms\":0,"
            "\"stop_reason\":\"EOS\"}\n\n");
  EXPECT_EQ(writer().write(EndEvent{StopReason::kStopSequence, "\n\n", 5, milliseconds(40)}),
            "data: {\"type\":\"end\",\"tokens_out\":5,\"decode_time_ms\":40,"
            "\"stop_reason\":\"STOP_SEQUENCE\",\"stop_sequence_matched\":\"\\n\\n\"}\n\n");
}

TEST(SseWriter, WritesTheEnergyIfThereIsAMeter) {
  EXPECT_EQ(writer().write(EndEvent{StopReason::kStopSequence, "a", 5, milliseconds(40), 12.34567}),
            "data: {\"type\":\"end\",\"tokens_out\":5,\"decode_time_ms\":40,"
            "\"stop_reason\":\"STOP_SEQUENCE\",\"stop_sequence_matched\":\"a\","
            "\"energy_j\":12.35}\n\n");
  EXPECT_EQ(writer().write(EndEvent{StopReason::kEos, {}, 0, milliseconds(0), 0.0}),
            "data: {\"type\":\"end\",\"tokens_out\":0,\"decode_time_ms\":0,"
            "\"stop_reason\":\"EOS\",\"energy_j\":0}\n\n");
}

TEST(SseWriter, WritesErrors) {
  EXPECT_EQ(writer().write(FailedEvent{"CANCELLED", "by /cancel", false}),
            "data: {\"type\":\"error\",\"code\":\"CANCELLED\",\"message\":\"by /cancel\","
            "\"retriable\":false}\n\n");
}

TEST(SseWriter, KnowsTheTerminalEvents) {
  EXPECT_TRUE(is_terminal(EndEvent{}));
  EXPECT_TRUE(is_terminal(FailedEvent{}));
  EXPECT_FALSE(is_terminal(StartedEvent{}));
  EXPECT_FALSE(is_terminal(TokenEvent{}));
  EXPECT_FALSE(is_terminal(MetricsEvent{}));
}

TEST(JsonText, EscapesControlsAndKeepsUnicode) {
  EXPECT_EQ(json_string("a\"\\/\b\f\n\r\t\x01\x1f\x7f\xE2\x80\xA8"),
            "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xE2\x80\xA8\"");
  EXPECT_EQ(json_string(std::string("\0", 1)), "\"\\u0000\"");
}

TEST(JsonText, ReplacesWhatIsNotUtf8) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(json_string("\xC3"), '"' + bad + '"');
  EXPECT_EQ(json_string("\xFFz"), '"' + bad + "z\"");
  EXPECT_EQ(json_string("\xC0\x80"), '"' + bad + bad + '"');
  EXPECT_EQ(json_string("\xED\xA0\x80"), '"' + bad + bad + bad + '"');
  EXPECT_EQ(json_string("\xF4\x90\x80\x80"), '"' + bad + bad + bad + bad + '"');
  EXPECT_EQ(json_string("\xF0\x9F\x98\x80"), "\"\xF0\x9F\x98\x80\"");
}

TEST(JsonText, WritesTheShortestFloat) {
  EXPECT_EQ(json_number(0.1F), "0.1");
  EXPECT_EQ(json_number(-13.25F), "-13.25");
  EXPECT_EQ(json_number(1e30F), "1e+30");
  EXPECT_EQ(json_number(-std::numeric_limits<float>::infinity()), "-3.4028235e+38");
  EXPECT_EQ(json_number(std::numeric_limits<float>::quiet_NaN()), "0");
  EXPECT_EQ(json_number(0.000123456, 4), "0.0001235");
  EXPECT_EQ(json_number(70, 4), "70");
  EXPECT_EQ(json_number(123456.7, 4), "123500");
  EXPECT_EQ(plain_number(0.0F), "0");
  EXPECT_EQ(plain_number(123.25F), "123.25");
  EXPECT_EQ(plain_number(16777216.0F), "16777216");
}

}  // namespace
}  // namespace llorch
