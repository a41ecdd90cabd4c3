// The models other than BPE, and what they stand on. Expected values are the tokenizers library's.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tokenizer/base64.h"
#include "tokenizer/json_number.h"
#include "tokenizer/trie.h"
#include "tokenizer/unigram.h"
#include "tokenizer/word_level.h"
#include "tokenizer/word_piece.h"

namespace llorch::tok {
namespace {

using Ids = std::vector<int32_t>;

Vocabulary vocabulary_of(const std::vector<std::string>& tokens) {
  Vocabulary vocabulary;
  for (size_t i = 0; i < tokens.size(); ++i) {
    vocabulary.add_again(tokens[i], static_cast<int32_t>(i));
  }
  vocabulary.index_ids();
  return vocabulary;
}

template <typename Model>
Ids encode(const Model& model, std::string_view word) {
  typename Model::Workspace workspace(1);
  Ids ids;
  model.encode(word, workspace, ids);
  return ids;
}

TEST(Trie, FindsItsStrings) {
  const Trie trie({{"ab", 1}, {"a", 2}, {"abc", 3}, {"", 4}, {"ab", 5}, {"\xE4\xBD", 6}});
  EXPECT_EQ(trie.value(Trie::kRoot), 4);
  EXPECT_EQ(trie.value(trie.walk(Trie::kRoot, "a")), 2);
  EXPECT_EQ(trie.value(trie.walk(Trie::kRoot, "ab")), 5);
  EXPECT_EQ(trie.value(trie.walk(Trie::kRoot, "\xE4")), Trie::kNone);
  EXPECT_EQ(trie.value(trie.walk(Trie::kRoot, "\xE4\xBD")), 6);
  EXPECT_EQ(trie.walk(Trie::kRoot, "b"), Trie::kNowhere);
  EXPECT_EQ(trie.walk(Trie::kRoot, "abcd"), Trie::kNowhere);
  EXPECT_EQ(Trie({}).walk(Trie::kRoot, "a"), Trie::kNowhere);
}

TEST(Unigram, TakesTheCutOfTheLargestSum) {
  const Unigram model(vocabulary_of({"<unk>", "a", "b", "c", "d", "cd", "ab", "abc", "abcd"}),
                      {0, 0, 0, 0, 0, 1, 2, 5, 10}, {0, false});
  EXPECT_EQ(encode(model, "abcd"), Ids{8});
  EXPECT_EQ(encode(model, "abcacdxx"), (Ids{7, 1, 5, 0}));
  EXPECT_EQ(encode(model, "x<unk>y"), Ids{0});  // neighbours that are unknown are one
  EXPECT_EQ(encode(model, "<unk>"), Ids{0});
}

TEST(Unigram, KeepsTheFirstOfEqualSums) {
  const Unigram model(vocabulary_of({"<unk>", "a", "aa", "aaa"}), {0, -1, -2, -3}, {0, false});
  EXPECT_EQ(encode(model, "aaaa"), (Ids{1, 3}));
  EXPECT_EQ(encode(model, "aa"), Ids{2});
}

TEST(Unigram, ReadsUnknownCharactersAsBytesWhereItHasThem) {
  const Unigram model(vocabulary_of({"<unk>", "a", "<0xC3>", "<0xA9>"}), {0, -1, 0, 0}, {0, true});
  EXPECT_EQ(encode(model, "a\u00E9a"), (Ids{1, 2, 3, 1}));
  EXPECT_EQ(encode(model, "a\u00E9\u00EA"), (Ids{1, 0}));  // one byte of the run has no token
}

TEST(Unigram, LastIdOfATokenCounts) {
  const Unigram model(vocabulary_of({"<unk>", "ab", "a", "b", "ab"}), {0, -1, -2, -2, -9},
                      {0, false});
  EXPECT_EQ(encode(model, "ab"), (Ids{2, 3}));
  EXPECT_EQ(model.vocabulary().token_of(1), "ab");
}

TEST(Unigram, RefusesUnknownTextWithoutAnUnknownToken) {
  const Unigram model(vocabulary_of({"a"}), {-1}, {});
  EXPECT_EQ(encode(model, "aa"), (Ids{0, 0}));
  EXPECT_THROW(encode(model, "ax"), Error);
}

TEST(WordPiece, TakesTheLongestTokenFirst) {
  const WordPiece model(vocabulary_of({"[UNK]", "un", "##aff", "##able", "##a", "u", "##"}),
                        {"[UNK]", "##", 10});
  EXPECT_EQ(encode(model, "unaffable"), (Ids{1, 2, 3}));
  EXPECT_EQ(encode(model, "unaffa"), (Ids{1, 2, 4}));
  EXPECT_EQ(encode(model, "unaffx"), Ids{0});
  EXPECT_EQ(encode(model, "unaaaaaaaa"), (Ids{1, 4, 4, 4, 4, 4, 4, 4, 4}));
  EXPECT_EQ(encode(model, "unaaaaaaaaa"), Ids{0});  // eleven characters
  const WordPiece without(vocabulary_of({"a"}), {"[UNK]", "##", 10});
  EXPECT_THROW(encode(without, "b"), Error);
}

TEST(WordLevel, KnowsWholeWords) {
  const WordLevel model(vocabulary_of({"<unk>", "ab"}), "<unk>");
  EXPECT_EQ(encode(model, "ab"), Ids{1});
  EXPECT_EQ(encode(model, "abc"), Ids{0});
  EXPECT_THROW(encode(WordLevel(vocabulary_of({"ab"}), "<unk>"), "a"), Error);
}

// A megabyte of one character, of a pair, and of what no token begins with: each place is left
// after as many steps as the longest token has, at most.
TEST(Models, TakeStepsInProportionToTheWord) {
  std::vector<std::string> tokens = {"[UNK]"};
  for (size_t length = 1; length <= 16; ++length) {
    tokens.push_back(std::string(length, 'a'));
    tokens.push_back("##" + std::string(length, 'a'));
  }
  tokens.insert(tokens.end(), {"ab", "##ba", "##b"});
  const std::vector<double> scores(tokens.size(), -1);
  const Unigram unigram(vocabulary_of(tokens), scores, {0, false});
  const WordPiece word_piece(vocabulary_of(tokens), {"[UNK]", "##", UINT64_MAX});
  constexpr size_t kBytes = 1 << 20;
  std::string pairs;
  while (pairs.size() < kBytes) pairs += "ab";
  for (const std::string& word :
       {std::string(kBytes, 'a'), std::string(kBytes, ' '), pairs, pairs + "x"}) {
    Unigram::Workspace ways(1);
    WordPiece::Workspace pieces(1);
    Ids ids;
    unigram.encode(word, ways, ids);
    word_piece.encode(word, pieces, ids);
    EXPECT_LE(ways.steps, 17 * word.size());
    EXPECT_LE(pieces.steps, 17 * word.size());
  }
}

// The library's parser is an ulp off the nearest double for some.
TEST(JsonNumber, IsWhatTheLibraryReads) {
  EXPECT_EQ(library_double("-3.6306493282318115"), -0x1.d0b91dfffffffp+1);
  EXPECT_EQ(library_double("-2.0122928619384766"), -0x1.0192d00000001p+1);
  EXPECT_EQ(library_double("1e-7"), 1e-7);
  EXPECT_EQ(library_double("-9.999999999999999999999"), -10.0);
  EXPECT_EQ(library_double("123456789012345678901234567890.125"), 0x1.8ee90ff6c373ep+96);
  EXPECT_EQ(library_double("1.5e300"), 0x1.1eb2d66005835p+997);
  EXPECT_EQ(library_double("2.2250738585072014e-308"), 0x1p-1022);
  EXPECT_EQ(library_double("4.9e-324"), 0x1p-1074);
  EXPECT_EQ(library_double("3e-330"), 0.0);
  EXPECT_EQ(library_double("18446744073709551616.05"), 0x1p+64);
  EXPECT_EQ(library_double("12.345E+2"), 1234.5);
  EXPECT_EQ(library_double("0.000000000000000000000000000001234567890123456789012345"),
            0x1.90a3e33c69ac3p-100);
}

TEST(Base64, TakesOnlyWhatIsWholeAndCanonical) {
  EXPECT_EQ(bytes_of_base64(""), "");
  EXPECT_EQ(bytes_of_base64("Zg=="), "f");
  EXPECT_EQ(bytes_of_base64("Zm8="), "fo");
  EXPECT_EQ(bytes_of_base64("Zm9v+/8="), "foo\xFB\xFF");
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "=Zm9", "Zg==Zg==", "Zm 9", "A===", "====", "Zm9v\n"}) {
    EXPECT_EQ(bytes_of_base64(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace llorch::tok
