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
  for (const char* model : {"Unigram", "WordPiece", "WordLevel", "Else"}) {
    says(with("/model/type", model), "model.type", model);
  }
  for (const char* type : {"Precompiled", "BertNormalizer", "StripAccents", "Nmt", "Else"}) {
    says(with("/normalizer", {{"type", type}}), "normalizer", type);
  }
  says(with("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Else"}}}}}),
       "normalizer.normalizers[0]", "Else");
  for (const char* type : {"BertPreTokenizer", "UnicodeScripts", "Else"}) {
    says(with("/pre_tokenizer", {{"type", type}}), "pre_tokenizer", type);
  }
  for (const char* type : {"WordPiece", "CTC", "BPEDecoder"}) {
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
