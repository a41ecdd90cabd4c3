// Contents of tokenizer files for tests. Tests only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

// Byte-level BPE: id b is byte b, then come `tokens` (raw bytes) without merges.
inline nlohmann::json byte_level_json(const std::vector<std::string>& tokens = {}) {
  nlohmann::json vocab = nlohmann::json::object();
  const auto written = [](const std::string& bytes) {
    std::string token;
    for (const char c : bytes) tok::append_byte_level(token, static_cast<unsigned char>(c));
    return token;
  };
  for (int byte = 0; byte < 256; ++byte)
    vocab[written(std::string(1, static_cast<char>(byte)))] = byte;
  for (size_t i = 0; i < tokens.size(); ++i) vocab[written(tokens[i])] = 256 + i;
  return {
      {"version", "1.0"},
      {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", nlohmann::json::array()}}}};
}

inline nlohmann::json added_token_json(int64_t id, const std::string& content,
                                       bool special = true) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

inline Tokenizer tokenizer_of(const nlohmann::json& json) {
  return Tokenizer::from_json(json.dump(), "tokenizer.json");
}

// What tools/gguf_tokenizer_diff.py writes of a GGUF file's metadata; the views are into `json`.
inline GgufVocabulary gguf_vocabulary_of(const nlohmann::json& json) {
  GgufVocabulary vocabulary;
  const auto strings = [&](const char* key) {
    std::vector<std::string_view> views;
    for (const auto& item : json.at(key)) views.push_back(item.get_ref<const std::string&>());
    return views;
  };
  vocabulary.model = json.at("model");
  vocabulary.pre = json.at("pre");
  vocabulary.architecture = json.at("architecture");
  vocabulary.tokens = strings("tokens");
  vocabulary.scores = json.at("scores").get<std::vector<float>>();
  vocabulary.types = json.at("types").get<std::vector<int32_t>>();
  vocabulary.merges = strings("merges");
  const auto read = [&](const char* key, auto& value) {
    if (json.contains(key)) value.emplace(json.at(key));
  };
  read("bos", vocabulary.bos);
  read("eos", vocabulary.eos);
  read("unk", vocabulary.unk);
  read("add_bos", vocabulary.add_bos);
  read("add_eos", vocabulary.add_eos);
  read("add_space_prefix", vocabulary.add_space_prefix);
  return vocabulary;
}

}  // namespace llorch
