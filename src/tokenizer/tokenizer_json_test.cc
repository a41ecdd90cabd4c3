#include "tokenizer/tokenizer_json.h"

#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tokenizer/testing.h"

namespace llorch {
namespace {

using nlohmann::json;

// What the reader says of `text`, or "" where it reads it.
std::string refusal(const std::string& text, ErrorCode code) {
  try {
    tok::read_tokenizer_json(text, "tokenizer.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "";
}

std::string corrupt(const json& document) {
  return refusal(document.dump(), ErrorCode::kCorruptFile);
}
std::string unsupported(const json& document) {
  return refusal(document.dump(), ErrorCode::kUnsupported);
}

// A readable document after one value was set, at a JSON pointer.
json with(const std::string& pointer, json value) {
  json document = byte_level_json({"ab"});
  document["model"]["merges"] = nlohmann::json::array({"a b"});
  document["added_tokens"] = nlohmann::json::array({added_token_json(257, "<e>")});
  document[json::json_pointer(pointer)] = std::move(value);
  return document;
}

TEST(TokenizerJson, ReadsWhatIsWhole) {
  EXPECT_EQ(corrupt(with("/version", "1.0")), "");
  EXPECT_EQ(corrupt(with("/truncation", {{"max_length", 3}})), "");
  EXPECT_EQ(corrupt(with("/model/merges", json::parse(R"([["a", "b"]])"))), "");
  EXPECT_EQ(corrupt(with("/model/merges", json::array({"#version: 0.2", "a b"}))), "");
  EXPECT_EQ(corrupt(with("/model/dropout", 0.0)), "");
  json untyped = with("/model/dropout", nullptr);
  untyped["model"].erase("type");
  EXPECT_EQ(corrupt(untyped), "");
}

TEST(TokenizerJson, RefusesTextThatIsNotOneJsonObject) {
  const auto whole = with("/version", "1.0").dump();
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{"), whole + "}",
        whole.substr(0, whole.size() / 2), std::string("{\"a\": \"\xFF\"}"),
        std::string("{\"a\": 1, \"a\": 2}"), std::string(100000, '['),
        std::string("{\"model\": {\"vocab\": {}, \"vocab\": {}}}")}) {
    EXPECT_NE(refusal(text, ErrorCode::kCorruptFile), "") << text.substr(0, 40);
  }
}

TEST(TokenizerJson, NamesThePlaceOfDamage) {
  const auto says = [](const json& document, const std::string& wanted) {
    EXPECT_EQ(corrupt(document).substr(0, wanted.size()), wanted);
  };
  says(with("/model/merges", json::array({"a b", "a b", "a q_"})),
       "tokenizer.json: model.merges[2]: ");
  says(with("/model/merges", json::array({"a b", "a", "a b"})),
       "tokenizer.json: model.merges[1]: ");
  says(with("/model/merges", json::array({"a b c"})), "tokenizer.json: model.merges[0]: ");
  says(with("/model/merges", json::parse(R"([["a", "b", "c"]])")),
       "tokenizer.json: model.merges[0]: ");
  says(with("/model/merges", json::parse(R"([["a", 1]])")), "tokenizer.json: model.merges[0]: ");
  says(with("/model/merges", json::parse(R"([[["a", "b"]]])")),
       "tokenizer.json: model.merges[0]: ");
  says(with("/model/merges", json::parse(R"([["a", "c"]])")),
       "tokenizer.json: model.merges[0]: the token \"ac\"");
  says(with("/model/merges", json::object()), "tokenizer.json: model: ");
  says(with("/model/vocab", json::array()), "tokenizer.json: model: ");
  says(with("/model/vocab/ab", -1), "tokenizer.json: model.vocab.ab: ");
  says(with("/model/vocab/ab", 1e300), "tokenizer.json: model.vocab.ab: ");
  says(with("/model/vocab/ab", 1ULL << 63), "tokenizer.json: model.vocab.ab: ");
  says(with("/model/vocab/ab", 10'000'001), "tokenizer.json: model.vocab.ab: ");
  says(with("/model/vocab/ab", "3"), "tokenizer.json: model.vocab.ab: ");
  says(with("/model/vocab/ab", json::object()), "tokenizer.json: model.vocab.ab: ");
  says(with("/model/vocab/ab", 7), "tokenizer.json: model.vocab: two tokens have the id 7");
  says(with("/model", 3), "tokenizer.json: model: ");
  says(with("/model/type", 3), "tokenizer.json: model.type: ");
  says(with("/model/byte_fallback", 3), "tokenizer.json: model.byte_fallback: ");
  says(with("/model/unk_token", 3), "tokenizer.json: model.unk_token: ");
  says(with("/added_tokens", 3), "tokenizer.json: added_tokens: ");
  says(with("/added_tokens/0/id", -3), "tokenizer.json: added_tokens[0].id: ");
  says(with("/added_tokens/0/special", "yes"), "tokenizer.json: added_tokens[0].special: ");
  says(with("/added_tokens/0", json::object()), "tokenizer.json: added_tokens[0]: ");
  says(with("/added_tokens/1", added_token_json(257, "<f>")), "tokenizer.json: added_tokens[1].id");
  says(with("/added_tokens/1", added_token_json(9, "<e>")),
       "tokenizer.json: added_tokens[1].content: ");
  says(with("/decoder", {{"type", "Strip"}, {"content", "xy"}, {"start", 1}, {"stop", 0}}),
       "tokenizer.json: decoder.content: ");
  says(with("/decoder", {{"type", "Sequence"}, {"decoders", {{{"type", 1}}}}}),
       "tokenizer.json: decoder.decoders[0].type: ");
}

// A tokenizer with another model.
json with_model(json model) {
  return {{"version", "1.0"}, {"added_tokens", json::array()}, {"model", std::move(model)}};
}

TEST(TokenizerJson, NamesThePlaceOfDamageInUnigram) {
  const auto says = [](json vocab, json unk_id, const std::string& wanted) {
    const json model = {
        {"type", "Unigram"}, {"unk_id", std::move(unk_id)}, {"vocab", std::move(vocab)}};
    EXPECT_EQ(corrupt(with_model(model)).substr(0, wanted.size()), wanted);
  };
  const json good = json::parse(R"([["<unk>", 0], ["a", -1.5]])");
  says(good, 1, "");
  says(good, nullptr, "");
  says(good, 2, "tokenizer.json: model.unk_id: ");
  says(good, -1, "tokenizer.json: model.unk_id: ");
  says(json::array(), 0, "tokenizer.json: model.unk_id: ");
  says(json::array(), nullptr, "");
  says(json::object(), 0, "tokenizer.json: model: has no vocab that is an array");
  for (const char* second :
       {R"(["a"])", R"(["a", 1, 2])", R"(["a", "b"])", R"(["a", null])", "[1]", R"([1, "a"])", "[]",
        "3", R"({"a": 1})", R"([["a", 1]])", R"(["a", true])", R"(["a", 1, "b", 2])"}) {
    says(json::parse(std::string(R"([["<unk>", 0], )") + second + "]"), 0,
         "tokenizer.json: model.vocab[1]: must be a token and its score");
  }
}

TEST(TokenizerJson, NamesThePlaceOfDamageInWordPiece) {
  json model = {{"type", "WordPiece"},
                {"unk_token", "[UNK]"},
                {"continuing_subword_prefix", "##"},
                {"max_input_chars_per_word", 100},
                {"vocab", {{"[UNK]", 0}, {"a", 1}}}};
  EXPECT_EQ(corrupt(with_model(model)), "");
  for (const char* key :
       {"unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}) {
    json without = model;
    without.erase(key);
    EXPECT_NE(corrupt(with_model(without)).find(key), std::string::npos) << key;
  }
  model["max_input_chars_per_word"] = -1;
  EXPECT_EQ(corrupt(with_model(model)).substr(0, 47),
            "tokenizer.json: model.max_input_chars_per_word:");
}

TEST(TokenizerJson, RefusesADamagedCharsmap) {
  const auto says = [](json block) {
    return corrupt(with("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", block}}));
  };
  for (const json& block : {json(""), json("AAAA"), json("AAAAAA=="), json("?"), json(3),
                            json("AAAAAAA"), json("AQAAAA==")}) {
    EXPECT_EQ(says(block).substr(0, 47), "tokenizer.json: normalizer.precompiled_charsmap")
        << block;
  }
}

TEST(TokenizerJson, TellsUntypedModelsByTheirMembers) {
  const json word_level = {{"unk_token", "u"}, {"vocab", {{"u", 0}, {"ab", 1}}}};
  json word_piece = word_level;
  word_piece["continuing_subword_prefix"] = "##";
  word_piece["max_input_chars_per_word"] = 9;
  word_piece["vocab"]["##c"] = 2;
  const json unigram = {{"unk_id", 0}, {"vocab", json::parse(R"([["u", 0], ["ab", -1]])")}};
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(tokenizer_of(with_model(word_level)).encode("abc"), Ids{0});
  EXPECT_EQ(tokenizer_of(with_model(word_piece)).encode("abc"), (Ids{1, 2}));
  EXPECT_EQ(tokenizer_of(with_model(unigram)).encode("abc"), (Ids{1, 0}));
}

TEST(TokenizerJson, RefusesATemplateThatNamesWhatIsMissing) {
  const auto post = [](json single, json special_tokens) {
    return corrupt(with("/post_processor", {{"type", "TemplateProcessing"},
                                            {"single", std::move(single)},
                                            {"special_tokens", std::move(special_tokens)}}));
  };
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json begin = {{"SpecialToken", {{"id", "<e>"}, {"type_id", 0}}}};
  EXPECT_EQ(post({begin, text}, {{"<e>", {{"ids", {257}}}}}), "");
  EXPECT_NE(post({begin, text}, json::object()), "");
  EXPECT_NE(post({begin, text}, {{"<e>", {{"ids", {258}}}}}), "");
  EXPECT_NE(post({begin, text}, {{"<e>", {{"ids", {-1}}}}}), "");
  EXPECT_NE(post({begin, {{"Sequence", {{"id", "B"}}}}}, {{"<e>", {{"ids", {257}}}}}), "");
}

TEST(TokenizerJson, NamesWhatIsNotSupported) {
  const auto says = [](const json& document, const std::string& place, const std::string& name) {
    const std::string text = unsupported(document);
    EXPECT_EQ(text.substr(0, 16 + place.size()), "tokenizer.json: " + place) << text;
    EXPECT_NE(text.find(name), std::string::npos) << text;
  };
  says(with("/model/type", "Else"), "model.type", "Else");
  says(with("/normalizer", {{"type", "Else"}}), "normalizer", "Else");
  says(with("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Else"}}}}}),
       "normalizer.normalizers[0]", "Else");
  for (const char* type : {"UnicodeScripts", "Else"}) {
    says(with("/pre_tokenizer", {{"type", type}}), "pre_tokenizer", type);
  }
  for (const char* type : {"CTC", "BPEDecoder", "Else"}) {
    says(with("/decoder", {{"type", type}}), "decoder", type);
  }
  says(with("/post_processor", {{"type", "Else"}}), "post_processor", "Else");
  says(with("/model/dropout", 0.1), "model.dropout", "");
  says(with("/model/end_of_word_suffix", "</w>"), "model.end_of_word_suffix", "");
  says(with("/model/continuing_subword_prefix", "##"), "model.continuing_subword_prefix", "");
  says(with("/version", "2.0"), "version", "2.0");
  says(with("/pre_tokenizer", {{"type", "Split"},
                               {"pattern", {{"Regex", "(a)\\1"}}},
                               {"behavior", "Isolated"},
                               {"invert", false}}),
       "pre_tokenizer.pattern.Regex", "\\1");
}

TEST(TokenizerJson, RefusesDecodersThatCannotStream) {
  const auto decoder = [](json steps) {
    return unsupported(with("/decoder", {{"type", "Sequence"}, {"decoders", std::move(steps)}}));
  };
  const json fuse = {{"type", "Fuse"}};
  const json marks = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  const json spaces = {{"type", "Replace"}, {"pattern", {{"Regex", " +"}}}, {"content", " "}};
  const json start = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const json end = {{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", 1}};
  const json words = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  EXPECT_EQ(decoder({marks, spaces, end, words, fuse, marks, start}), "");
  for (const json& step : {spaces, end, words}) {
    EXPECT_EQ(decoder({fuse, step}).substr(0, 42), "tokenizer.json: decoder.decoders[1]: the d");
    EXPECT_NE(decoder({{{"type", "ByteLevel"}}, step}), "");
  }
  EXPECT_NE(decoder({{{"type", "ByteFallback"}}, words}), "");
}

TEST(TokenizerJson, HandlesIdsWithGaps) {
  json document = byte_level_json();
  document["model"]["vocab"]["zz"] = 9'999'999;
  const Tokenizer tokenizer = tokenizer_of(document);
  EXPECT_EQ(tokenizer.vocab_size(), 10'000'000);
  EXPECT_EQ(tokenizer.token_bytes(9'999'999), "zz");
  EXPECT_EQ(tokenizer.token_bytes(9'999'998), "");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', 300, 9'999'999}, false), "azz");
}

TEST(TokenizerJson, GivesAddedTokensTheIdsThatTheLibraryGives) {
  json document = byte_level_json();
  document["added_tokens"] = nlohmann::json::array(
      {added_token_json(500, "<x>"), added_token_json(600, "a"), added_token_json(700, "<y>")});
  const Tokenizer tokenizer = tokenizer_of(document);
  EXPECT_EQ(tokenizer.token_id("<x>"), 256);
  EXPECT_EQ(tokenizer.token_id("a"), 'a');
  EXPECT_EQ(tokenizer.token_id("<y>"), 257);
}

}  // namespace
}  // namespace llorch
