#include "tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "tokenizer/added_token_list.h"
#include "tokenizer/gguf_pre.h"
#include "tokenizer/json_node.h"
#include "tokenizer/piece_merges.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr char kMark[] = "\u2581";

[[noreturn]] void corrupt(const std::string& file, const std::string& key,
                          const std::string& reason) {
  throw_corrupt_at(file, "tokenizer.ggml." + key, reason);
}

std::string at(const char* key, size_t i) { return key + ("[" + std::to_string(i) + "]"); }

// The vocabulary checked, each token as its tokenizer.json has it.
struct Tokens {
  struct Token {
    std::string text;  // empty: a gap
    PieceType type = PieceType::kNormal;
    float score = 0;
  };
  std::vector<Token> all;  // by id
  bool has(PieceType type) const {
    return std::any_of(all.begin(), all.end(), [&](const Token& t) { return t.type == type; });
  }
};

Tokens read_tokens(const GgufVocabulary& from, const std::string& file) {
  const size_t count = from.tokens.size();
  if (count == 0) corrupt(file, "tokens", "is empty");
  if (count > static_cast<size_t>(kMaxTokenId)) corrupt(file, "tokens", "has too many tokens");
  const auto check_count = [&](const char* key, size_t found) {
    if (found == 0 || found == count) return;
    corrupt(file, key,
            "has " + std::to_string(found) + " items for " + std::to_string(count) + " tokens");
  };
  check_count("scores", from.scores.size());
  check_count("token_type", from.types.size());
  Tokens tokens;
  tokens.all.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Tokens::Token& token = tokens.all[i];
    token.text = from.tokens[i];
    if (!is_valid_utf8(token.text)) corrupt(file, at("tokens", i), "is not valid UTF-8");
    if (!from.scores.empty()) {
      token.score = from.scores[i];
      if (!std::isfinite(token.score)) corrupt(file, at("scores", i), "is not a number");
    }
    if (!from.types.empty()) {
      if (from.types[i] < 1 || from.types[i] > 6) {
        corrupt(file, at("token_type", i), "must be 1 to 6; got " + std::to_string(from.types[i]));
      }
      token.type = static_cast<PieceType>(from.types[i]);
    }
    // Fillers up to the size of the embedding are tokens of no tokenizer.json.
    const bool is_unk = from.unk && static_cast<size_t>(*from.unk) == i;
    if (token.type == PieceType::kUnused ||
        (token.type == PieceType::kUnknown && from.unk && !is_unk)) {
      token.text.clear();
    }
  }
  return tokens;
}

// Of a text that is there twice the first id counts.
Vocabulary make_vocabulary(const Tokens& tokens) {
  Vocabulary vocabulary;
  vocabulary.reserve(tokens.all.size());
  for (size_t i = 0; i < tokens.all.size(); ++i) {
    const std::string& text = tokens.all[i].text;
    if (!text.empty()) vocabulary.add(text, static_cast<int32_t>(i));
  }
  vocabulary.index_ids();
  return vocabulary;
}

// What converters drop and models have: Phi's chat tokens take the white space beside them.
void add_flags(const GgufVocabulary& from, AddedToken& token) {
  if (from.architecture != "phi3") return;
  if (from.pre == "dbrx") {  // Phi-4
    token.lstrip = token.rstrip = true;
  } else if (from.model == "llama") {
    token.rstrip =
        token.content != "<unk>" && token.content != "<s>" && token.content != "<|endoftext|>";
  } else {  // Phi-4-mini
    token.rstrip = token.content == "<|system|>" || token.content == "<|user|>" ||
                   token.content == "<|assistant|>" || token.content == "<|end|>";
  }
}

AddedTokens make_added_tokens(const GgufVocabulary& from, const Tokens& tokens,
                              const Vocabulary& vocabulary, const std::string& file) {
  AddedTokenList list;
  for (const Tokens::Token& token : tokens.all) {
    const bool special = token.type == PieceType::kControl || token.type == PieceType::kUnknown;
    if (!special && token.type != PieceType::kUserDefined) continue;
    AddedToken added;
    added.content = token.text;
    added.special = special;
    if (special) add_flags(from, added);
    list.put(std::move(added));
  }
  return list.make(vocabulary, {}, file);
}

std::vector<TemplatePiece> make_post(const GgufVocabulary& from, const Vocabulary& vocabulary,
                                     bool add_bos, std::optional<int32_t> bos,
                                     std::optional<int32_t> eos, const std::string& file) {
  std::vector<TemplatePiece> post;
  const auto put = [&](bool wanted, const char* key, std::optional<int32_t> id) {
    if (!wanted) return;
    if (!id || !vocabulary.token_of(*id)) {
      corrupt(file, key, "must be the id of a token, as it is put around each text");
    }
    post.push_back({false, {*id}});
  };
  put(from.add_bos.value_or(add_bos), "bos_token_id", bos);
  post.push_back({true, {}});
  put(from.add_eos.value_or(false), "eos_token_id", eos);
  return post;
}

std::vector<BpeMerge> read_merges(const GgufVocabulary& from, const Vocabulary& vocabulary,
                                  const std::string& file) {
  if (from.merges.empty()) corrupt(file, "merges", "is missing");
  std::vector<BpeMerge> merges;
  merges.reserve(from.merges.size());
  std::string joined;
  for (size_t i = 0; i < from.merges.size(); ++i) {
    const std::string_view text = from.merges[i];
    const auto id_of = [&](std::string_view token) {
      const std::optional<int32_t> id = vocabulary.id_of(token);
      if (!id) corrupt(file, at("merges", i), "\"" + shown(token) + "\" is no token");
      return *id;
    };
    const size_t space = text.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == text.size()) {
      corrupt(file, at("merges", i), "must be two tokens with a space between");
    }
    const std::string_view left = text.substr(0, space), right = text.substr(space + 1);
    joined.assign(left).append(right);
    merges.push_back({id_of(left), id_of(right), id_of(joined)});
  }
  return merges;
}

Parts read_byte_level(const GgufVocabulary& from, const std::string& file) {
  if (from.pre.empty()) {
    throw_unsupported_at(file, "tokenizer.ggml.pre",
                         "is missing; how the text is cut into words cannot be told");
  }
  std::optional<GgufPre> pre = gguf_pre(from.pre);
  if (!pre) {
    throw_unsupported_at(file, "tokenizer.ggml.pre",
                         "the pre-tokenizer '" + shown(from.pre) + "' is not supported");
  }
  const Tokens tokens = read_tokens(from, file);
  Vocabulary vocabulary = make_vocabulary(tokens);
  AddedTokens added = make_added_tokens(from, tokens, vocabulary, file);
  std::vector<TemplatePiece> post =
      make_post(from, vocabulary, pre->add_bos, from.bos, from.eos, file);
  const std::vector<BpeMerge> merges = read_merges(from, vocabulary, file);
  BpeOptions options;
  options.ignore_merges = pre->ignore_merges;
  std::vector<Normalizer> normalizers;
  if (pre->nfc) normalizers.emplace_back(NormalForm::kNfc);
  return Parts{Bpe(std::move(vocabulary), merges, std::move(options)),
               std::move(added),
               std::move(normalizers),
               std::move(pre->steps),
               std::move(post),
               {ByteLevelDecoder{}},
               false};
}

// Converters write user-defined tokens with spaces for marks, and below all scores; the model files
// have them at 0.
void restore_user_defined(Tokens& tokens) {
  for (Tokens::Token& token : tokens.all) {
    if (token.type != PieceType::kUserDefined) continue;
    std::string text;
    for (const char c : token.text) text += c == ' ' ? std::string(kMark) : std::string(1, c);
    token.text = std::move(text);
    token.score = 0;
  }
}

// As transformers converted SentencePiece models; those without a prefix are Gemma's.
Parts read_marked(const GgufVocabulary& from, const std::string& file) {
  constexpr int32_t kBos = 1, kEos = 2;  // where the file is silent
  if (from.scores.empty()) corrupt(file, "scores", "is missing");
  Tokens tokens = read_tokens(from, file);
  restore_user_defined(tokens);
  Vocabulary vocabulary = make_vocabulary(tokens);
  AddedTokens added = make_added_tokens(from, tokens, vocabulary, file);
  std::vector<TemplatePiece> post =
      make_post(from, vocabulary, true, from.bos.value_or(kBos), from.eos.value_or(kEos), file);
  std::vector<float> scores;
  std::vector<bool> barred;
  BpeOptions options;
  options.fuse_unk = true;
  options.byte_fallback = tokens.has(PieceType::kByte);
  for (const Tokens::Token& token : tokens.all) {
    scores.push_back(token.score);
    barred.push_back(token.type == PieceType::kControl || token.type == PieceType::kUnknown);
    if (token.type == PieceType::kUnknown && !token.text.empty()) options.unk_token = token.text;
  }
  const bool prefix = from.add_space_prefix.value_or(true);
  const std::vector<BpeMerge> merges = merges_of_pieces(
      vocabulary, prefix ? MergeOrder::kScore : MergeOrder::kScoreLength, scores, barred, file);
  std::vector<Normalizer> normalizers;
  if (prefix) normalizers.emplace_back(PrependText{kMark});
  normalizers.emplace_back(ReplaceText{Pattern::literal(" "), kMark});
  std::vector<Decoder> decoders = {ReplaceDecoder{Pattern::literal(kMark), " "},
                                   ByteFallbackDecoder{}, FuseDecoder{}};
  if (prefix) decoders.push_back(StripDecoder{" ", 1, 0});
  return Parts{Bpe(std::move(vocabulary), merges, std::move(options)),
               std::move(added),
               std::move(normalizers),
               {},
               std::move(post),
               std::move(decoders),
               false};
}

}  // namespace

Parts read_gguf_vocabulary(const GgufVocabulary& vocabulary, const std::string& file) {
  if (vocabulary.model == "gpt2") return read_byte_level(vocabulary, file);
  if (vocabulary.model == "llama") return read_marked(vocabulary, file);
  throw_unsupported_at(file, "tokenizer.ggml.model",
                       "the tokenizer '" + shown(vocabulary.model) + "' is not supported");
}

}  // namespace llorch::tok
