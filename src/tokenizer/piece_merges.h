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

// How transformers' conversions to tokenizer.json rank merges. The orders differ for two ways to
// one piece, which matters in runs of one character.
enum class MergeOrder {
  kId,           // pieces by id, then the shorter left side (transformers 5)
  kScore,        // pieces by falling score, then ids of left and right (conversions of 2023)
  kScoreLength,  // by falling score, length of left, length of right (conversions since Gemma)
};

// All ways to cut a token of `vocabulary` in two tokens, the order being the rank. `scores` by id,
// for the orders by score; tokens that are `barred` by id take no part. Ids have no gaps. Throws
// Error{kUnsupported} naming `file` for more merges than any model has.
std::vector<BpeMerge> merges_of_pieces(const Vocabulary& vocabulary, MergeOrder order,
                                       std::span<const float> scores,
                                       const std::vector<bool>& barred, const std::string& file);

}  // namespace llorch::tok
