// What a tokenizer is made of, whatever file it came from. Knows nothing of files.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/unigram.h"
#include "tokenizer/word_level.h"
#include "tokenizer/word_piece.h"

namespace llorch::tok {

using Model = std::variant<Bpe, Unigram, WordPiece, WordLevel>;

inline const Vocabulary& vocabulary_of(const Model& model) {
  return std::visit([](const auto& m) -> const Vocabulary& { return m.vocabulary(); }, model);
}

// What stands in the ids of a whole text: the text's own ids, or ids that are put around them.
struct TemplatePiece {
  bool is_text;
  std::vector<int32_t> special;  // of a piece that is not the text
};

struct Parts {
  Model model;
  AddedTokens added;
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  std::vector<TemplatePiece> post;  // always holds the text at least once
  std::vector<Decoder> decoders;
  bool no_decoder = false;
};

}  // namespace llorch::tok
