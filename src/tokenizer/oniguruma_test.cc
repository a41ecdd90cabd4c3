#include "tokenizer/oniguruma.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

using Strings = std::vector<std::string>;

Strings matches(std::string_view pattern, std::string_view text) {
  std::vector<Stretch> found;
  Pattern::regex(pattern).find(text, found);
  Strings out;
  for (const Stretch& s : found) {
    if (s.is_match) out.emplace_back(text.substr(s.begin, s.end - s.begin));
  }
  return out;
}

// How many code points but surrogates and NUL a one-character pattern matches.
int members(std::string_view pattern, char32_t end = 0x110000) {
  std::string all;
  for (char32_t c = 1; c < end; ++c) {
    if (c < 0xD800 || c > 0xDFFF) append_utf8(all, c);
  }
  return static_cast<int>(matches(pattern, all).size());
}

// The expected lists are Oniguruma's, by way of the tokenizers library's Split.
TEST(Oniguruma, ClassesMeanWhatTheyMeanThere) {
  EXPECT_EQ(members(R"(\s)"), 25);
  EXPECT_EQ(members(R"([\s])"), 25);
  EXPECT_EQ(members(R"([^\S])"), 25);
  EXPECT_EQ(members(R"(\h)"), 22);
  EXPECT_EQ(members(R"([[:blank:]])"), 18);
  EXPECT_EQ(members(R"([[:cntrl:]])"), 64);
  EXPECT_EQ(members(R"(\R)"), 7);
  EXPECT_EQ(matches(R"(\s)", "a\u180Eb"), Strings{});
  EXPECT_EQ(matches(R"(\w+)", "a\u00B2b\u00BC"), Strings{"a\u00B2b\u00BC"});
  EXPECT_EQ(matches(R"([\w]+)", "a\u00B2b"), (Strings{"a", "b"}));
  EXPECT_EQ(matches(R"(\bx\b)", "x x\u00B2 x"), (Strings{"x", "x"}));
  EXPECT_EQ(matches(R"([[:punct:]])", "a+b-c"), (Strings{"+", "-"}));
  EXPECT_EQ(matches(R"(\p{Punct})", "a+b-c"), Strings{"-"});
  EXPECT_EQ(matches(R"(\p{Han}+)", "a\u4F60\u3001\u597D"), (Strings{"\u4F60", "\u597D"}));
  EXPECT_EQ(matches(R"([\p{Alnum}&&[^\d]]+)", "ab12c"), (Strings{"ab", "c"}));
  EXPECT_EQ(matches(R"([^a-c&&[b-z]])", "abcd1"), (Strings{"a", "d", "1"}));
  EXPECT_EQ(matches(R"([ab[^\x00-z]]+)", "ab{c~"), (Strings{"ab{", "~"}));
  EXPECT_EQ(matches(R"(\v)", "a\n\vb"), Strings{"\v"});
}

TEST(Oniguruma, QuantifiersMeanWhatTheyMeanThere) {
  EXPECT_EQ(matches(R"(\d{1,3}+)", "12345"), Strings{"12345"});
  EXPECT_EQ(matches(R"(\d{,2})", "123"), (Strings{"12", "3"}));
  EXPECT_EQ(matches(R"(a{,})", "a{,}"), Strings{"a{,}"});
  EXPECT_EQ(matches(R"(a++b)", "aab"), Strings{"aab"});
  EXPECT_EQ(matches(R"(a++a)", "aaa"), Strings{});
  EXPECT_EQ(matches(R"(\d{1,3}?)", "123"), (Strings{"1", "2", "3"}));
}

TEST(Oniguruma, OptionsMeanWhatTheyMeanThere) {
  EXPECT_EQ(matches("(?i:'s|'t)", "'S 'ſ 'T"), (Strings{"'S", "'ſ", "'T"}));
  EXPECT_EQ(matches("a(?i)b|c", "aB c aC ab"), (Strings{"aB", "aC", "ab"}));
  EXPECT_EQ(matches("(?m:a.b)", "a\nb"), Strings{"a\nb"});
  EXPECT_EQ(matches("a.b", "a\nb"), Strings{});
  EXPECT_EQ(matches("^b$", "a\nb\nc"), Strings{"b"});
}

TEST(Oniguruma, EmptyMatchesDoNotRepeat) {
  std::vector<Stretch> found;
  Pattern::regex("x*").find("axxb", found);
  Strings out;
  for (const Stretch& s : found) {
    out.push_back((s.is_match ? "+" : "-") + std::string("axxb").substr(s.begin, s.end - s.begin));
  }
  EXPECT_EQ(out, (Strings{"+", "-a", "+xx", "-b", "+"}));
}

// Where case does not matter Oniguruma takes ss for a sharp s, and a class of capitals for all.
TEST(Oniguruma, RefusesFoldsThatPcreHasNot) {
  for (const char* pattern : {"(?i)stra\u00DFe", "(?i)ss", "(?i:\uFB01)", "(?i)fi", "(?i)[\u00DF]",
                              "(?i:St)", "(?i)\u0130", "(?i)[\\p{Lu}]", "(?i)[^[:lower:]x]",
                              "(?i)j\u030C", "(?i:a|x(?:s)\u017Ft)", "(?i)s\\x{74}"}) {
    EXPECT_THROW(Pattern::regex(pattern), UntranslatablePattern) << pattern;
  }
  for (const char* pattern : {"(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i)[a-z]s|t", "(?i)[\\p{L}\\w]",
                              "(?i)\\p{Lu}", "(?i:s)t", "(?i-i:ss)", "ss[\\p{Lu}\u00DF]"}) {
    EXPECT_NO_THROW(Pattern::regex(pattern)) << pattern;
  }
}

TEST(Oniguruma, RefusesByName) {
  for (const char* pattern : {"(a)\\1",    "\\X",      "\\K",       "(?~a)",       "(?x: a)",
                              "a**",       "a+*",      "*a",        "(a",          "a)",
                              "[a",        "[]",       "a\\",       "\\p{",        "\\p{Nonsense}",
                              "\\pL",      "(?<=a+)b", "[a-\\d]",   "[z-a]",       "a{3,1}",
                              "a{99999}",  "\\xE4",    "\\x{D800}", "\\x{110000}", "[[:nonsense:]]",
                              "[[:alpha:", "(?",       "(?<n",      "(?#",         "(?<",
                              "\\u12",     "a{2}?",    "^*",        "[a&&]",       "\\C",
                              "\\G"}) {
    EXPECT_THROW(Pattern::regex(pattern), UntranslatablePattern) << pattern;
  }
  EXPECT_THROW(Pattern::regex(std::string(1000, '(')), UntranslatablePattern);
  EXPECT_THROW(Pattern::regex(std::string(1000, '[')), UntranslatablePattern);
}

}  // namespace
}  // namespace llorch::tok
