#include "tokenizer/stream_decoder.h"

#include <string>

#include <gtest/gtest.h>

#include "tokenizer/testing.h"

namespace llorch {
namespace {

// Ids below 256 are bytes, so that a test chooses where tokens begin and end.
class StreamDecoderTest : public testing::Test {
 protected:
  static const Tokenizer& tokenizer() {
    static const Tokenizer made = [] {
      auto json = byte_level_json({"xSTOPy", "ab", "\xE4\xBD", "\xA0z", " the"});
      json["added_tokens"] = nlohmann::json::array({added_token_json(261, "<end>")});
      return tokenizer_of(json);
    }();
    return made;
  }
  static constexpr int32_t kXStopY = 256, kAb = 257, kHead = 258, kTail = 259, kThe = 260,
                           kEnd = 261;

  // Every piece that push() gave, with "|" between, then what finish() gave.
  static std::string run(StreamDecoder& decoder, std::string_view bytes) {
    std::string out;
    for (const char c : bytes) out += decoder.push(static_cast<unsigned char>(c)) + "|";
    return out + decoder.finish();
  }
  static std::string run(std::vector<std::string> stop, std::string_view bytes) {
    StreamDecoder decoder(tokenizer(), std::move(stop));
    return run(decoder, bytes);
  }
  // All text, and the stop sequence that ended it.
  static std::string all(std::vector<std::string> stop, std::string_view bytes) {
    StreamDecoder decoder(tokenizer(), std::move(stop));
    std::string out;
    for (const char c : bytes) out += decoder.push(static_cast<unsigned char>(c));
    out += decoder.finish();
    return out + "[" + decoder.stopped().value_or("none") + "]";
  }
};

TEST_F(StreamDecoderTest, GivesTextAsSoonAsItIsWhole) {
  EXPECT_EQ(run({}, "hi"), "h|i|");
  EXPECT_EQ(run({}, "\xC3\xA9!"), "|\u00E9|!|");
  EXPECT_EQ(run({}, "\xF0\x9F\x99\x82"), "|||\U0001F642|");
}

TEST_F(StreamDecoderTest, KeepsTheFirstTokensSpace) {
  StreamDecoder decoder(tokenizer(), {});
  EXPECT_EQ(decoder.push(kThe), " the");
}

TEST_F(StreamDecoderTest, JoinsCharactersAcrossTokens) {
  StreamDecoder decoder(tokenizer(), {});
  EXPECT_EQ(decoder.push(kHead), "");
  EXPECT_EQ(decoder.push(kEnd), "");  // a special token between changes nothing
  EXPECT_EQ(decoder.push(kTail), "\u4F60z");
}

TEST_F(StreamDecoderTest, ReplacesBytesOnceTheyCannotBecomeACharacter) {
  EXPECT_EQ(run({}, "\xFFz"), "\uFFFD|z|");
  EXPECT_EQ(run({}, "\xE4\xBDz"), "||\uFFFDz|");
  EXPECT_EQ(run({}, "\xE4\xE4\xBD\xA0"), "|\uFFFD||\u4F60|");
  EXPECT_EQ(run({}, "\xF0\x80\x80"), "|\uFFFD\uFFFD|\uFFFD|");
  EXPECT_EQ(run({}, "\xF0\x9F\x99"), "|||\uFFFD");
}

// Byte-fallback tokens: one for each byte, also of a part that could have begun a character.
TEST_F(StreamDecoderTest, ReplacesEachByteWhereTheDecoderDoes) {
  nlohmann::json json = byte_level_json();
  json["pre_tokenizer"] = nullptr;
  json["decoder"] = {{"type", "ByteFallback"}};
  json["model"]["vocab"] = {{"<0xE4>", 0}, {"<0xBD>", 1}, {"<0xA0>", 2}, {"a", 3}};
  const Tokenizer tokenizer = tokenizer_of(json);
  for (const std::vector<int32_t>& ids : std::vector<std::vector<int32_t>>{
           {3, 0, 1, 2, 3}, {3, 0, 3}, {3, 0, 1, 3}, {3, 0, 1}, {3, 1}}) {
    StreamDecoder stream(tokenizer, {});
    std::string text;
    for (const int32_t id : ids) text += stream.push(id);
    EXPECT_EQ(text + stream.finish(), tokenizer.decode(ids, true));
  }
}

TEST_F(StreamDecoderTest, NeverLeaksAPartOfAStopSequence) {
  EXPECT_EQ(run({"STOP"}, "aSTOPb"), "a||||||");
  EXPECT_EQ(run({"STOP"}, "aSTOb"), "a||||STOb|");
  EXPECT_EQ(run({"STOP"}, "aSTO"), "a||||STO");
  EXPECT_EQ(run({"STOP"}, "SSTOP"), "|S||||");
  EXPECT_EQ(run({"aab"}, "aaab"), "||a||");
  EXPECT_EQ(run({"abab!"}, "abababab!"),
            "||||ab"
            "||ab"
            "|||");
}

TEST_F(StreamDecoderTest, FindsAStopSequenceInsideOneToken) {
  StreamDecoder decoder(tokenizer(), {"STOP"});
  EXPECT_EQ(decoder.push(kAb), "ab");
  EXPECT_EQ(decoder.push(kXStopY), "x");
  EXPECT_EQ(decoder.stopped(), "STOP");
  EXPECT_EQ(decoder.push(kAb), "");
  EXPECT_EQ(decoder.finish(), "");
}

TEST_F(StreamDecoderTest, FindsAStopSequenceAcrossTokens) {
  StreamDecoder decoder(tokenizer(), {"yab"});
  EXPECT_EQ(decoder.push(kXStopY), "xSTOP");
  EXPECT_EQ(decoder.push(kAb), "");
  EXPECT_EQ(decoder.stopped(), "yab");
}

TEST_F(StreamDecoderTest, TakesTheStopSequenceThatEndsFirst) {
  EXPECT_EQ(all({"bcd", "abcdef"}, "xabcdef"), "xa[bcd]");
  EXPECT_EQ(all({"abcde", "c"}, "xabcde"), "xab[c]");
  EXPECT_EQ(all({"c", "bc", "xbc"}, "abc"), "a[bc]");  // all end together: the longest found
  EXPECT_EQ(all({"q"}, "abc"), "abc[none]");
}

TEST_F(StreamDecoderTest, HoldsNoMoreThanMayBeginAStopSequence) {
  EXPECT_EQ(run({"\n\nHuman:", "\n###"}, "a\n##b"), "a||||\n##b|");
  EXPECT_EQ(run({"\n\nHuman:", "\n###"}, "\n\n##"), "||\n||\n##");
  EXPECT_EQ(run({"\u4F60\u597D"}, "\u4F60a"), "|||\u4F60a|");
}

TEST_F(StreamDecoderTest, FindsAStopSequenceAtTheVeryEnd) {
  EXPECT_EQ(all({"z\uFFFD"}, "az\xE4"), "a[z\uFFFD]");
  EXPECT_EQ(all({"", "\x80", "z"}, "az"), "a[z]");
}

}  // namespace
}  // namespace llorch
