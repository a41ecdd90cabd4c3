// Merges for vocabularies that come without: SentencePiece's, in which any two neighbours whose
// text together is a piece may merge. Knows nothing of files.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/vocabulary.h"

namespace llorch::tok {

// Pieces that are made by falling score; the orders differ in two ways to one piece, which matters
// in long runs of one character.
enum class MergeOrder {
  kScore,        // then by id, then the shorter left side
  kScoreLength,  // then the longer left side, the longer right side: Gemma's tokenizer.json
};

// All ways to cut a token of `vocabulary` in two tokens, the order being the rank. `scores` and
// `barred` by id; tokens that are barred take no part. Throws Error{kUnsupported} naming `file` for
// more merges than any model has.
std::vector<BpeMerge> merges_of_pieces(const Vocabulary& vocabulary, MergeOrder order,
                                       std::span<const float> scores,
                                       const std::vector<bool>& barred, const std::string& file);

}  // namespace llorch::tok
