#include "tokenizer/gguf_tokenizer.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tokenizer/gguf_pre.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

nlohmann::json read_json(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return nlohmann::json::parse(std::string{std::istreambuf_iterator<char>(in), {}});
}

// Every vocabulary that tools/gguf_tokenizer_diff.py wrote, with the library's answers for the
// tokenizer.json that it was converted from.
TEST(GgufTokenizer, GivesTheIdsOfTheTokenizerJson) {
  int vocabularies = 0;
  for (const auto& entry : fs::directory_iterator("tests/golden/gguf_tokenizers")) {
    const std::string name = entry.path().filename().string();
    const size_t end = name.find(".gguf.json");
    if (end == std::string::npos) continue;
    ++vocabularies;
    const auto json = read_json(entry.path());
    const Tokenizer tokenizer = Tokenizer::from_gguf(gguf_vocabulary_of(json), name);
    const auto cases =
        read_json(entry.path().parent_path() / (name.substr(0, end) + ".cases.json"));
    for (const auto& wanted : cases) {
      const auto text = wanted["text"].get<std::string>();
      const Ids ids = wanted["ids"];
      EXPECT_EQ(tokenizer.encode(text), ids) << name << text;
      EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}),
                wanted["plain_ids"].get<Ids>())
          << name << text;
      EXPECT_EQ(tokenizer.decode(ids, false), wanted["decoded"]) << name;
      EXPECT_EQ(tokenizer.decode(ids, true), wanted["decoded_without_special"]) << name;
    }
  }
  EXPECT_GE(vocabularies, 12);
}

// The least that reads: "a", "b" and what they make.
GgufVocabulary byte_level() {
  GgufVocabulary v;
  v.model = "gpt2";
  v.pre = "gpt-2";
  v.tokens = {"a", "b", "ab", "<|end|>", "[PAD4]"};
  v.types = {1, 1, 1, 3, 5};
  v.merges = {"a b"};
  return v;
}

GgufVocabulary marked() {
  GgufVocabulary v;
  v.model = "llama";
  v.tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"};
  v.types = {2, 3, 3, 1, 1, 1};
  v.scores = {0, 0, 0, -2, -3, -1};
  return v;
}

void expect_refused(const GgufVocabulary& vocabulary, const std::string& what,
                    ErrorCode code = ErrorCode::kCorruptFile) {
  try {
    Tokenizer::from_gguf(vocabulary, "m.gguf");
    ADD_FAILURE() << "read, though " << what;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find("m.gguf: tokenizer.ggml." + what), std::string::npos)
        << e.what();
  }
}

template <typename Change>
GgufVocabulary changed(GgufVocabulary vocabulary, const Change& change) {
  change(vocabulary);
  return vocabulary;
}

TEST(GgufTokenizer, LeavesOutFillers) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(byte_level(), "m.gguf");
  EXPECT_EQ(tokenizer.vocab_size(), 4);
  EXPECT_EQ(tokenizer.encode("ab<|end|>"), (Ids{2, 3}));
  EXPECT_FALSE(tokenizer.token_id("[PAD4]"));
}

TEST(GgufTokenizer, PutsAroundATextWhatTheFileAsksFor) {
  auto v = byte_level();
  v.bos = v.eos = 3;
  EXPECT_EQ(Tokenizer::from_gguf(v, "m").encode("ab"), (Ids{2}));
  v.add_bos = v.add_eos = true;
  EXPECT_EQ(Tokenizer::from_gguf(v, "m").encode("ab"), (Ids{3, 2, 3}));
  // Where the file is silent: a bos token for SentencePiece's models, and for Llama 3's.
  EXPECT_EQ(Tokenizer::from_gguf(marked(), "m").encode("a"), (Ids{1, 5}));
  v.add_bos = v.add_eos = std::nullopt;
  v.pre = "llama-bpe";
  EXPECT_EQ(Tokenizer::from_gguf(v, "m").encode("ab"), (Ids{3, 2}));
}

TEST(GgufTokenizer, PutsNoMarkBeforeATextIfTheFileSaysSo) {
  auto v = marked();
  v.add_space_prefix = false;
  const Tokenizer tokenizer = Tokenizer::from_gguf(v, "m");
  EXPECT_EQ(tokenizer.encode("a a"), (Ids{1, 4, 5}));
  EXPECT_EQ(tokenizer.decode(Ids{5, 4}, true), " aa");
}

// Converters drop these flags; models of the architecture have them.
TEST(GgufTokenizer, GivesPhi3sChatTokensTheSpacesBehindThem) {
  auto v = marked();
  v.tokens.push_back("<|end|>");
  v.types.push_back(3);
  v.scores.push_back(0);
  EXPECT_EQ(Tokenizer::from_gguf(v, "m").encode("a<|end|>\n a"), (Ids{1, 5, 6, 3, 0, 5}));
  v.architecture = "phi3";
  EXPECT_EQ(Tokenizer::from_gguf(v, "m").encode("a<|end|>\n a"), (Ids{1, 5, 6, 5}));
}

TEST(GgufTokenizer, RefusesUnknownModelsAndCutsByName) {
  const auto unsupported = ErrorCode::kUnsupported;
  for (const char* model : {"bert", "t5", "rwkv", "gemma4", "no_vocab", ""}) {
    expect_refused(changed(byte_level(), [&](auto& v) { v.model = model; }),
                   std::string("model: the tokenizer '") + model + "' is not supported",
                   unsupported);
  }
  for (const char* pre : {"default", "falcon", "x\n"}) {
    expect_refused(changed(byte_level(), [&](auto& v) { v.pre = pre; }), "pre: the pre-tokenizer '",
                   unsupported);
  }
  expect_refused(changed(byte_level(), [](auto& v) { v.pre.clear(); }), "pre: is missing",
                 unsupported);
}

TEST(GgufTokenizer, RefusesWhatContradictsItself) {
  using V = GgufVocabulary;
  expect_refused(changed(byte_level(), [](V& v) { v.tokens.clear(); }), "tokens: is empty");
  expect_refused(changed(byte_level(), [](V& v) { v.types.pop_back(); }),
                 "token_type: has 4 items for 5 tokens");
  expect_refused(changed(byte_level(), [](V& v) { v.types[1] = 9; }), "token_type[1]: must be");
  expect_refused(changed(byte_level(), [](V& v) { v.tokens[1] = "\xFF"; }), "tokens[1]: is not");
  expect_refused(changed(byte_level(), [](V& v) { v.merges.clear(); }), "merges: is missing");
  for (const char* merge : {"", "a", "a ", "ab"}) {
    expect_refused(changed(byte_level(), [&](V& v) { v.merges[0] = merge; }), "merges[0]: must be");
  }
  expect_refused(changed(byte_level(), [](V& v) { v.merges[0] = "a c"; }),
                 "merges[0]: \"c\" is no token");
  expect_refused(changed(byte_level(), [](V& v) { v.merges[0] = "b a"; }),
                 "merges[0]: \"ba\" is no token");
  expect_refused(changed(byte_level(), [](V& v) { v.add_bos = true; }), "bos_token_id: must be");
  expect_refused(changed(byte_level(),
                         [](V& v) {
                           v.add_eos = true;
                           v.eos = 77;
                         }),
                 "eos_token_id: must be");
  expect_refused(changed(marked(), [](V& v) { v.scores.clear(); }), "scores: is missing");
  expect_refused(
      changed(marked(), [](V& v) { v.scores[2] = std::numeric_limits<float>::quiet_NaN(); }),
      "scores[2]: is not a number");
}

}  // namespace
}  // namespace llorch
