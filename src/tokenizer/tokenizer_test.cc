#include "tokenizer/tokenizer.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/testing.h"
#include "tokenizer/unicode.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

const fs::path kGoldens = "tests/golden/tokenizers";
constexpr Tokenizer::EncodeOptions kPlain{.add_special_tokens = false, .parse_special = false};

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Golden {
  std::string name;
  Tokenizer tokenizer;
  nlohmann::json cases;
};

// Every tokenizer that tools/tokenizer_diff.py wrote, with the library's answers.
const std::vector<Golden>& goldens() {
  static const std::vector<Golden> all = [] {
    std::vector<Golden> found;
    for (const auto& entry : fs::directory_iterator(kGoldens)) {
      const fs::path path = entry.path();
      if (path.stem().extension() == ".cases") continue;
      fs::path cases = path;
      cases.replace_extension(".cases.json");
      found.push_back({path.stem().string(), Tokenizer::from_json(read(path), path.string()),
                       nlohmann::json::parse(read(cases))});
    }
    return found;
  }();
  return all;
}

TEST(Tokenizer, EncodesAsTheLibrary) {
  ASSERT_GE(goldens().size(), 20U);
  for (const Golden& golden : goldens()) {
    for (const auto& wanted : golden.cases) {
      const auto text = wanted["text"].get<std::string>();
      EXPECT_EQ(golden.tokenizer.encode(text), wanted["ids"].get<Ids>()) << golden.name << text;
      EXPECT_EQ(golden.tokenizer.encode(text, kPlain), wanted["plain_ids"].get<Ids>())
          << golden.name << text;
    }
  }
}

// Every folder that tools/sentencepiece_diff.py wrote: with the answers of transformers, or with
// those of SentencePiece, which has no ids of its own to put around a text.
TEST(Tokenizer, ReadsSentencePieceFilesAsTheReferences) {
  int folders = 0;
  for (const auto& entry : fs::directory_iterator("tests/golden/sentencepiece")) {
    const fs::path folder = entry.path();
    const Tokenizer tokenizer = Tokenizer::from_sentencepiece(
        read(folder / "tokenizer.model"), read(folder / "tokenizer_config.json"),
        (folder / "tokenizer.model").string());
    ++folders;
    for (const auto& wanted : nlohmann::json::parse(read(folder / "cases.json"))) {
      const auto text = wanted["text"].get<std::string>();
      EXPECT_EQ(tokenizer.encode(text, kPlain), wanted["plain_ids"].get<Ids>()) << folder << text;
      if (!wanted.contains("ids")) continue;
      const Ids ids = wanted["ids"];
      EXPECT_EQ(tokenizer.encode(text), ids) << folder << text;
      EXPECT_EQ(tokenizer.decode(ids, false), wanted["decoded"]) << folder;
      EXPECT_EQ(tokenizer.decode(ids, true), wanted["decoded_without_special"]) << folder;
    }
  }
  EXPECT_GE(folders, 15);
}

TEST(Tokenizer, DecodesAsTheLibrary) {
  for (const Golden& golden : goldens()) {
    for (const auto& wanted : golden.cases) {
      const Ids ids = wanted["ids"];
      EXPECT_EQ(golden.tokenizer.decode(ids, false), wanted["decoded"]) << golden.name;
      EXPECT_EQ(golden.tokenizer.decode(ids, true), wanted["decoded_without_special"])
          << golden.name;
    }
  }
}

// Wherever the prompt ends (but inside a character), its text and the streamed rest are the whole.
TEST(Tokenizer, StreamsAsTheLibraryDecodesAtEverySplit) {
  int splits = 0;
  for (const Golden& golden : goldens()) {
    for (const auto& wanted : golden.cases) {
      const Ids ids = wanted["ids"];
      std::string prompt_bytes;
      bool begun = false;
      for (size_t k = 1; k <= ids.size(); ++k) {
        if (!golden.tokenizer.is_special(ids[k - 1])) {
          prompt_bytes += golden.tokenizer.token_bytes(ids[k - 1]);
          begun = true;
        }
        if (!begun || !tok::is_valid_utf8(prompt_bytes)) continue;
        std::string text = golden.tokenizer.decode(std::span(ids).first(k), true);
        StreamDecoder stream(golden.tokenizer, {});
        for (size_t i = k; i < ids.size(); ++i) text += stream.push(ids[i]);
        ASSERT_EQ(text + stream.finish(), wanted["decoded_without_special"]) << golden.name << k;
        ++splits;
      }
    }
  }
  EXPECT_GT(splits, 10000);
}

TEST(Tokenizer, TakesInvalidUtf8ForReplacementCharacters) {
  const Tokenizer tokenizer = tokenizer_of(byte_level_json());
  const auto bytes = [&](std::string_view text) { return tokenizer.encode(text); };
  EXPECT_EQ(bytes("a\xFF"
                  "b"),
            bytes("a\uFFFD"
                  "b"));
  EXPECT_EQ(bytes("\xE4\xBD"), bytes("\uFFFD"));  // one unfinished character
  EXPECT_EQ(bytes("\xE4\xBDz\xF0\x9F"), bytes("\uFFFDz\uFFFD"));
  EXPECT_EQ(bytes("\xED\xA0\x80"), bytes("\uFFFD\uFFFD\uFFFD"));  // a surrogate
  EXPECT_EQ(bytes("\xC0\xAF"), bytes("\uFFFD\uFFFD"));
  EXPECT_EQ(bytes(std::string_view("a\0b", 3)), (Ids{'a', 0, 'b'}));
}

TEST(Tokenizer, SkipsIdsOutOfRange) {
  const Tokenizer tokenizer = tokenizer_of(byte_level_json());
  EXPECT_EQ(tokenizer.vocab_size(), 256);
  EXPECT_EQ(tokenizer.decode(Ids{-1, 'a', 256, INT32_MAX, 'b', INT32_MIN}, false), "ab");
  for (const int32_t id : {-1, 256, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer.token_bytes(id), "");
    EXPECT_FALSE(tokenizer.is_special(id));
  }
}

TEST(Tokenizer, KnowsTokensByContent) {
  auto json = byte_level_json({"the"});
  json["added_tokens"] = nlohmann::json::array(
      {added_token_json(257, "<end>"), added_token_json(258, "<tool>", false)});
  const Tokenizer tokenizer = tokenizer_of(json);
  EXPECT_EQ(tokenizer.token_id("<end>"), 257);
  EXPECT_EQ(tokenizer.token_id("the"), 256);
  EXPECT_EQ(tokenizer.token_id("nothing"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(257));
  EXPECT_FALSE(tokenizer.is_special(258));
  EXPECT_FALSE(tokenizer.is_special(256));
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_EQ(tokenizer.token_bytes(256), "the");
}

TEST(Tokenizer, ReadsSpecialTokensInTheTextOnlyWhenAsked) {
  auto json = byte_level_json();
  json["added_tokens"] =
      nlohmann::json::array({added_token_json(256, "<e>"), added_token_json(257, "<t>", false)});
  const Tokenizer tokenizer = tokenizer_of(json);
  EXPECT_EQ(tokenizer.encode("a<e><t>"), (Ids{'a', 256, 257}));
  EXPECT_EQ(tokenizer.encode("a<e><t>", kPlain), (Ids{'a', '<', 'e', '>', 257}));
}

// What an n * n algorithm would need hours for.
TEST(Tokenizer, EncodesAMegabyteOfOneCharacter) {
  constexpr size_t kLength = 1 << 20;
  auto json = byte_level_json({"aa", "aaaa", "  "});
  json["model"]["merges"] = nlohmann::json::array({"a a", "aa aa", "\u0120 \u0120"});
  json["added_tokens"] = nlohmann::json::array({added_token_json(259, "bbbbbbbb")});
  const Tokenizer tokenizer = tokenizer_of(json);
  EXPECT_EQ(tokenizer.encode(std::string(kLength, 'a')), Ids(kLength / 4, 257));
  EXPECT_EQ(tokenizer.encode(std::string(kLength, 'b')), Ids(kLength / 8, 259));
  EXPECT_EQ(tokenizer.encode(std::string(kLength, ' ')), Ids(kLength / 2, 258));
}

// What takes n * n steps does not end in a test's time.
TEST(Tokenizer, EncodesLongRunsWithEveryKind) {
  constexpr size_t kLength = 1 << 16;
  for (const char* part : {"a", " ", "ab", "\n", "\u0301\u0323", "\u200D", "\u4F60", "1", "."}) {
    std::string text = "x";
    while (text.size() < kLength) text += part;
    text += "x";
    for (const Golden& golden : goldens()) {
      EXPECT_LE(golden.tokenizer.encode(text).size(), text.size() + 8) << golden.name << part;
    }
  }
}

TEST(Tokenizer, SkipsARunThatItsPatternCannotMatch) {
  constexpr size_t kLength = 1 << 20;
  auto json = byte_level_json();
  json["pre_tokenizer"] = {{"type", "Split"},
                           {"pattern", {{"Regex", "\\s+$"}}},
                           {"behavior", "Isolated"},
                           {"invert", false}};
  json["model"]["vocab"][" "] = 256;
  const Ids ids = tokenizer_of(json).encode(std::string(kLength, ' ') + "x");
  ASSERT_EQ(ids.size(), kLength + 1);
  EXPECT_EQ(ids[0], 256);
  EXPECT_EQ(ids[kLength], 'x');
}

TEST(Tokenizer, RefusesTextThatNeedsAnUnknownTokenThatIsMissing) {
  auto json = byte_level_json();
  json["pre_tokenizer"] = nullptr;
  json["model"]["unk_token"] = "<unk>";
  const Tokenizer tokenizer = tokenizer_of(json);
  EXPECT_EQ(tokenizer.encode("a"), Ids{'a'});
  EXPECT_THROW(tokenizer.encode("\u4F60"), Error);
  json["model"]["unk_token"] = nullptr;
  EXPECT_EQ(tokenizer_of(json).encode("a\u4F60"), Ids{'a'});  // the library drops it
}

// Chained by a damaged file, byte-level steps double the text each time.
TEST(Tokenizer, RefusesTextThatItsStepsMakeTooLong) {
  auto json = byte_level_json();
  auto steps = nlohmann::json::array();
  for (int i = 0; i < 60; ++i) steps.push_back(json["pre_tokenizer"]);
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
  EXPECT_THROW(tokenizer_of(json).encode(" "), Error);

  json = byte_level_json();
  const nlohmann::json grow = {
      {"type", "Replace"}, {"pattern", {{"Regex", ""}}}, {"content", std::string(100, 'x')}};
  json["decoder"] = {{"type", "Sequence"}, {"decoders", nlohmann::json::array({grow, grow, grow})}};
  EXPECT_THROW(tokenizer_of(json), Error);
}

TEST(Tokenizer, MayBeUsedFromManyThreads) {
  const Tokenizer& tokenizer = goldens().front().tokenizer;
  const std::string text = goldens().front().cases[5]["text"];
  const Ids wanted = goldens().front().cases[5]["ids"];
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) right += tokenizer.encode(text) == wanted;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 200);
}

TEST(Tokenizer, RefusesTextThatTakesAPatternTooMuchWork) {
  auto json = byte_level_json();
  json["pre_tokenizer"] = {{"type", "Split"},
                           {"pattern", {{"Regex", "(?:a|a|a|aa)+$"}}},
                           {"behavior", "Isolated"},
                           {"invert", false}};
  const Tokenizer tokenizer = tokenizer_of(json);
  try {
    tokenizer.encode(std::string(1000, 'a') + "b");
    FAIL() << "encoded";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadRequest);
    EXPECT_NE(std::string(e.what()).find("pattern"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace llorch
