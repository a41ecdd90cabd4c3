#include "tokenizer/json_model.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llorch::tok {
namespace {

Vocabulary read_vocabulary(const TokenizerDocument& document, const std::string& file) {
  Vocabulary vocabulary;
  vocabulary.reserve(document.vocab_ids.size());
  for (size_t i = 0; i < document.vocab_ids.size(); ++i) {
    const std::string_view token = document.vocab_tokens[i];
    const int64_t id = document.vocab_ids[i];
    const auto corrupt = [&](const std::string& reason) {
      throw_corrupt_at(file, "model.vocab." + shown(token), reason);
    };
    if (id < 0 || id > kMaxTokenId) {
      corrupt("the id must be from 0 to " + std::to_string(kMaxTokenId) + "; got " +
              std::to_string(id));
    }
    if (!vocabulary.add(token, static_cast<int32_t>(id))) corrupt("is listed twice");
  }
  if (const std::optional<int32_t> id = vocabulary.index_ids()) {
    throw_corrupt_at(file, "model.vocab", "two tokens have the id " + std::to_string(*id));
  }
  return vocabulary;
}

std::vector<BpeMerge> read_merges(const TokenizerDocument& document, const Vocabulary& vocabulary,
                                  const std::string& file) {
  std::vector<BpeMerge> merges;
  merges.reserve(document.merge_is_pair.size());
  std::string joined;
  size_t next = 0;
  for (size_t i = 0; i < document.merge_is_pair.size(); ++i) {
    const auto corrupt = [&](const std::string& reason) {
      throw_corrupt_at(file, "model.merges[" + std::to_string(i) + "]", reason);
    };
    std::string_view left = document.merges[next++], right;
    if (document.merge_is_pair[i]) {
      right = document.merges[next++];
    } else {
      if (left.substr(0, 8) == "#version") continue;  // the first line of an old merges file
      const size_t space = left.find(' ');
      if (space == std::string_view::npos || left.find(' ', space + 1) != std::string_view::npos) {
        corrupt("must be two tokens with one space between; got \"" + shown(left) + "\"");
      }
      right = left.substr(space + 1);
      left = left.substr(0, space);
    }
    const auto id_of = [&](std::string_view token) {
      const std::optional<int32_t> id = vocabulary.id_of(token);
      if (!id) corrupt("the token \"" + shown(token) + "\" is not in the vocabulary");
      return *id;
    };
    joined.assign(left).append(right);
    merges.push_back({id_of(left), id_of(right), id_of(joined)});
  }
  return merges;
}

Bpe read_bpe(const JsonNode& node, const TokenizerDocument& document) {
  if (const auto dropout = node.find("dropout"); dropout && !dropout->is_zero()) {
    dropout->unsupported("merges that are left out by chance are not supported");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto affix = node.find(key);
    if (affix && !affix->string().empty()) affix->unsupported("affixes are not supported");
  }
  if (!document.has_vocab) node.corrupt("has no vocab that is an object");
  if (!document.has_merges) node.corrupt("has no merges that are an array");
  BpeOptions options;
  if (const auto token = node.find("unk_token")) options.unk_token = token->string();
  options.fuse_unk = node.boolean_or("fuse_unk", false);
  options.byte_fallback = node.boolean_or("byte_fallback", false);
  options.ignore_merges = node.boolean_or("ignore_merges", false);
  Vocabulary vocabulary = read_vocabulary(document, node.file());
  const std::vector<BpeMerge> merges = read_merges(document, vocabulary, node.file());
  return Bpe(std::move(vocabulary), merges, std::move(options));
}

Unigram read_unigram(const JsonNode& node, const TokenizerDocument& document) {
  if (!document.has_scores) node.corrupt("has no vocab that is an array");
  const size_t tokens = document.vocab_tokens.size();
  if (tokens > static_cast<size_t>(kMaxTokenId)) node.unsupported("has too many tokens");
  Vocabulary vocabulary;
  vocabulary.reserve(tokens);
  for (size_t i = 0; i < tokens; ++i) {
    vocabulary.add_again(document.vocab_tokens[i], static_cast<int32_t>(i));
  }
  vocabulary.index_ids();
  UnigramOptions options;
  if (const auto id = node.find("unk_id")) {
    if (tokens == 0) id->corrupt("is the id of no token");
    options.unk_id = static_cast<int32_t>(id->integer(0, static_cast<int64_t>(tokens) - 1));
  }
  options.byte_fallback = node.boolean_or("byte_fallback", false);
  return Unigram(std::move(vocabulary), document.vocab_scores, options);
}

WordPiece read_word_piece(const JsonNode& node, const TokenizerDocument& document) {
  if (!document.has_vocab) node.corrupt("has no vocab that is an object");
  WordPieceOptions options;
  options.unk_token = node.at("unk_token").string();
  options.continuing_prefix = node.at("continuing_subword_prefix").string();
  options.max_word_chars =
      static_cast<uint64_t>(node.at("max_input_chars_per_word").integer(0, INT64_MAX));
  return WordPiece(read_vocabulary(document, node.file()), std::move(options));
}

WordLevel read_word_level(const JsonNode& node, const TokenizerDocument& document) {
  if (!document.has_vocab) node.corrupt("has no vocab that is an object");
  return WordLevel(read_vocabulary(document, node.file()), node.at("unk_token").string());
}

}  // namespace

Model read_model(const JsonNode& node, const TokenizerDocument& document) {
  const auto type = node.find("type");
  std::string name;
  if (type) {
    name = type->string();
  } else if (document.has_merges) {
    // Files of the library's first versions name no type; then the members tell.
    name = "BPE";
  } else if (document.has_scores) {
    name = "Unigram";
  } else if (document.has_vocab) {
    name = node.find("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
  }
  if (name == "BPE") return read_bpe(node, document);
  if (name == "Unigram") return read_unigram(node, document);
  if (name == "WordPiece") return read_word_piece(node, document);
  if (name == "WordLevel") return read_word_level(node, document);
  if (!type) node.corrupt("has no type");
  type->unsupported("the model " + shown(name) + " is not supported");
}

}  // namespace llorch::tok
