#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tokenizer/piece_merges.h"
#include "tokenizer/tokenizer.h"

namespace llorch {
namespace {

using tok::MergeOrder;

// Writes the wire format.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string number(unsigned field, uint64_t value) { return varint(field << 3) + varint(value); }
std::string bytes(unsigned field, const std::string& value) {
  return varint(field << 3 | 2) + varint(value.size()) + value;
}
std::string float32(unsigned field, float value) {
  char raw[4];
  std::memcpy(raw, &value, sizeof raw);
  return varint(field << 3 | 5) + std::string(raw, sizeof raw);
}
std::string piece(const std::string& text, float score, uint64_t type = 1) {
  return bytes(1, bytes(1, text) + float32(2, score) + number(3, type));
}

const std::string kSpecials = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
const std::string kBpe = bytes(2, number(3, 2));
// No prefix, no trimming.
const std::string kBare = bytes(3, number(3, 0) + number(4, 0));

void expect_refused(const std::string& model, std::string_view config, const std::string& what,
                    ErrorCode code = ErrorCode::kCorruptFile) {
  try {
    Tokenizer::from_sentencepiece(model, config, "dir/tokenizer.model");
    ADD_FAILURE() << "read, though " << what;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
  }
}

TEST(SentencePiece, RefusesDamagedFiles) {
  const std::string good = kSpecials + piece("a", -1) + kBpe;
  ASSERT_EQ(Tokenizer::from_sentencepiece(good, "", "m").vocab_size(), 4);
  expect_refused("", "", "dir/tokenizer.model: holds no pieces");
  // Cut anywhere, it is refused or reads as a shorter list; it never reads past the end.
  for (size_t size = 0; size < good.size(); ++size) {
    try {
      Tokenizer::from_sentencepiece(good.substr(0, size), "", "m");
    } catch (const Error& e) {
      EXPECT_NE(e.code(), ErrorCode::kInternal) << e.what();
    }
  }
  expect_refused("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", "", "longer than what is left");
  expect_refused(std::string(11, '\xFF'), "", "a number is too long");
  expect_refused(std::string("\x0B", 1), "", "unknown type");
  expect_refused(std::string("\x02\x00", 2), "", "no valid number");
  expect_refused(kSpecials + number(1, 5), "", "field 1 is not a string");
  expect_refused(kSpecials + piece("", 0) + kBpe, "", "piece 3 is empty");
  expect_refused(kSpecials + piece("\xFF", 0) + kBpe, "", "piece 3 is not valid UTF-8");
  expect_refused(kSpecials + piece("a", std::numeric_limits<float>::quiet_NaN()), "",
                 "piece 3 has a score");
  expect_refused(kSpecials + piece("a", 0, 9), "", "piece 3 has the unknown type 9");
  expect_refused(good + piece("a", 0), "", "the piece \"a\" is listed twice");
  expect_refused(good + bytes(3, bytes(2, "abc")), "", "precompiled_charsmap");
}

TEST(SentencePiece, RefusesWhatItHasNotGotByName) {
  const auto unsupported = ErrorCode::kUnsupported;
  expect_refused(kSpecials + bytes(2, number(3, 3)), "", "WORD", unsupported);
  expect_refused(kSpecials + bytes(2, number(3, 4)), "", "CHAR", unsupported);
  expect_refused(kSpecials + bytes(2, number(3, 2) + number(24, 1)), "",
                 "treat_whitespace_as_suffix", unsupported);
  expect_refused(kSpecials + kBpe, R"({"tokenizer_class": "XLMRobertaTokenizer"})",
                 "dir/tokenizer_config.json: tokenizer_class: the class XLMRobertaTokenizer",
                 unsupported);
  expect_refused(kSpecials + kBpe, "[1]", "dir/tokenizer_config.json: is not a JSON object");
  expect_refused(kSpecials + kBpe, R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
                 "is not the id of a token");
}

TEST(SentencePiece, GivesARenamedPieceItsNewName) {
  const Tokenizer tokenizer = Tokenizer::from_sentencepiece(
      kSpecials + piece("[free]", 0) + kBpe + kBare,
      R"({"added_tokens_decoder": {"3": {"content": "<|a|>", "special": true}}})", "m");
  EXPECT_EQ(tokenizer.token_id("<|a|>"), 3);
  EXPECT_FALSE(tokenizer.token_id("[free]"));
  EXPECT_EQ(tokenizer.vocab_size(), 4);
}

// The second list is that of transformers' generate_merges().
TEST(PieceMerges, RanksByScore) {
  tok::Vocabulary vocabulary;
  const std::vector<std::string> pieces = {"a", "b", "ab", "aa", "aab", "aaa"};
  const std::vector<float> scores = {0, 0, -5, -3, -4, -3};
  for (size_t i = 0; i < pieces.size(); ++i) vocabulary.add(pieces[i], static_cast<int32_t>(i));
  vocabulary.index_ids();
  const auto merges = [&](MergeOrder order) {
    std::string text;
    const std::vector<bool> barred(pieces.size(), false);
    for (const auto& m : tok::merges_of_pieces(vocabulary, order, scores, barred, "m")) {
      text +=
          pieces[static_cast<size_t>(m.left)] + "+" + pieces[static_cast<size_t>(m.right)] + " ";
      EXPECT_EQ(pieces[static_cast<size_t>(m.merged)],
                pieces[static_cast<size_t>(m.left)] + pieces[static_cast<size_t>(m.right)]);
    }
    return text;
  };
  EXPECT_EQ(merges(MergeOrder::kScore), "a+a a+aa aa+a a+ab aa+b a+b ");
  EXPECT_EQ(merges(MergeOrder::kScoreLength), "aa+a a+aa a+a aa+b a+ab a+b ");
}

// A text whose characters are dropped or wait for an unknown token is not cut beside them: what is
// left or put there has other neighbours.
TEST(SentencePiece, DropsUnknownCharactersOfLongTextsAsOfShortOnes) {
  const Tokenizer tokenizer = Tokenizer::from_sentencepiece(
      kSpecials + piece("ab", -1) + piece("a", -2) + piece("b", -3) + kBpe + kBare,
      R"({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false})", "m");
  std::string text;
  std::vector<int32_t> ids;
  for (int i = 0; i < 40; ++i) {
    text +=
        "a\xC3\xB6"
        "b";
    ids.push_back(3);
  }
  EXPECT_EQ(tokenizer.encode(text), ids);
}

}  // namespace
}  // namespace llorch
