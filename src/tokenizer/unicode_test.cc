#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

namespace llorch::tok {
namespace {

// Expected values: Python's bytes.decode("utf-8", "replace").
TEST(Unicode, ReplacesEachMaximalInvalidPartOnce) {
  EXPECT_EQ(to_valid_utf8("a\xC3"), "a\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x99z"), "\uFFFDz");
  EXPECT_EQ(to_valid_utf8("\xF0\x8F\xBF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xE0\x80\xAF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFD"
            "A");
  EXPECT_EQ(to_valid_utf8("\xFF\xFE\xC1\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(Unicode, CharactersSurviveTheRoundTrip) {
  for (const char32_t c :
       {U'\0', U'\x7F', U'\x80', U'\u07FF', U'\u0800', U'\uFFFF', U'\U00010000', U'\U0010FFFF'}) {
    std::string text;
    append_utf8(text, c);
    EXPECT_TRUE(is_valid_utf8(text));
    EXPECT_EQ(char_bytes(text, 0), text.size());
    EXPECT_EQ(char_at(text, 0), c);
    EXPECT_EQ(char_before(text, text.size()), 0U);
  }
}

// Expected values: the tokenizers library's normalizers, whose tables are Unicode 9's.
TEST(Unicode, NormalFormsAreTheLibrarys) {
  EXPECT_EQ(normalize("e\u0301", NormalForm::kNfc), "\u00E9");
  EXPECT_EQ(normalize("\u00E9", NormalForm::kNfd), "e\u0301");
  EXPECT_EQ(normalize("\uFB01", NormalForm::kNfkc), "fi");
  EXPECT_EQ(normalize("\uFB01", NormalForm::kNfc), "\uFB01");
  EXPECT_EQ(normalize("\uD55C", NormalForm::kNfkd), "\u1112\u1161\u11AB");
  EXPECT_EQ(normalize("\u32FF", NormalForm::kNfkc), "\u32FF");               // of Unicode 12.1
  EXPECT_EQ(normalize("a\u1ABF\u0301", NormalForm::kNfc), "a\u1ABF\u0301");  // of 13
  EXPECT_EQ(normalize(std::string_view("a\0b", 3), NormalForm::kNfc), std::string("a\0b", 3));
}

// What utf8proc alone would need hours for: it orders marks by insertion.
TEST(Unicode, NormalizesALongRunOfMarks) {
  constexpr size_t kMarks = 300'000;
  std::string mixed = "a", ordered = "a";
  for (size_t i = 0; i < kMarks; ++i) mixed += i % 2 == 0 ? "\u0301" : "\u0323";
  for (size_t i = 0; i < kMarks; ++i) ordered += i < kMarks / 2 ? "\u0323" : "\u0301";
  EXPECT_EQ(normalize(mixed, NormalForm::kNfd), ordered);
  EXPECT_EQ(normalize(mixed, NormalForm::kNfc), "\u1EA1" + ordered.substr(3));
}

TEST(Unicode, ClassesAreTheLibrarys) {
  EXPECT_TRUE(is_whitespace(0x85));
  EXPECT_FALSE(is_whitespace(0x180E));
  EXPECT_FALSE(is_whitespace(0x200B));
  EXPECT_TRUE(is_numeric(0xBD));
  EXPECT_TRUE(is_numeric(0x2167));
  EXPECT_FALSE(is_numeric(0x4E00));
  EXPECT_TRUE(is_punctuation('$'));
  EXPECT_TRUE(is_punctuation(0x3002));
  EXPECT_FALSE(is_punctuation(0x20AC));
  EXPECT_FALSE(is_punctuation(0x2E43));  // came after the library's table
  EXPECT_TRUE(is_combining_mark(0x301));
  EXPECT_TRUE(is_combining_mark(0x903));
  EXPECT_TRUE(is_combining_mark(0x1CF2));   // no longer a mark
  EXPECT_FALSE(is_combining_mark(0x1ABF));  // later
  EXPECT_TRUE(is_nonspacing_mark(0x1734));
  EXPECT_FALSE(is_nonspacing_mark(0x903));
  EXPECT_FALSE(is_nonspacing_mark(0x1885));
  EXPECT_TRUE(is_other(0x200D));
  EXPECT_TRUE(is_other(0xE000));
  EXPECT_FALSE(is_other(0x378));  // unassigned
  EXPECT_FALSE(is_other(0x890));
  std::string lower;
  for (const char32_t c : {U'A', U'\u0130', U'\u00DF', U'\u0416', U'\u1E9E'})
    append_lowercase(lower, c);
  EXPECT_EQ(lower, "ai\u0307\u00DF\u0436\u00DF");
}

TEST(Unicode, BreaksTextIntoClusters) {
  const auto clusters = [](std::string_view text) {
    GraphemeBreaker breaker(text);
    std::vector<std::string> found;
    for (size_t at = 0; at < text.size();) {
      const size_t end = breaker.next();
      found.emplace_back(text.substr(at, end - at));
      at = end;
    }
    return found;
  };
  using Strings = std::vector<std::string>;
  EXPECT_EQ(clusters(""), Strings{});
  EXPECT_EQ(clusters("ab\r\n\n\r"), (Strings{"a", "b", "\r\n", "\n", "\r"}));
  EXPECT_EQ(clusters("e\u0301\u0323x"), (Strings{"e\u0301\u0323", "x"}));
  EXPECT_EQ(clusters("\u0600a"), Strings{"\u0600a"});
  EXPECT_EQ(clusters("\U0001F1E9\U0001F1EA\U0001F1E9\U0001F1EA"),
            (Strings{"\U0001F1E9\U0001F1EA", "\U0001F1E9\U0001F1EA"}));
  EXPECT_EQ(clusters("\u1100\u1161\u11A8\u1100"), (Strings{"\u1100\u1161\u11A8", "\u1100"}));
  EXPECT_EQ(clusters("\U0001F469\u200D\U0001F467!"), (Strings{"\U0001F469\u200D\U0001F467", "!"}));
}

}  // namespace
}  // namespace llorch::tok
