// A tokenizer.json for tests, part by part. Tests only.
#pragma once

#include <string>
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

}  // namespace llorch
