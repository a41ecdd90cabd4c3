// Cuts text into words, which the model then encodes one by one. Knows nothing of tokens.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "tokenizer/pieces.h"
#include "tokenizer/regex.h"

namespace llorch::tok {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct ByteLevelWords {
  bool add_prefix_space;
  bool use_regex;  // GPT-2's pattern
};
struct SplitWords {
  Pattern pattern;
  SplitBehavior behavior;
  bool invert;  // the words are what matches
};
struct DigitsWords {
  bool individual;
};
struct PunctuationWords {
  SplitBehavior behavior;
};
struct WhitespaceWords {};       // \w+|[^\w\s]+
struct WhitespaceSplitWords {};  // at White_Space
struct FixedLengthWords {
  size_t chars;  // of each word but the last, at least 1
};
struct MetaspaceWords {
  enum class Prepend { kFirst, kNever, kAlways };
  std::string replacement;  // one character
  Prepend prepend;
  bool split;
};

// One step; a file's Sequence is laid out flat.
using PreTokenizer =
    std::variant<ByteLevelWords, SplitWords, DigitsWords, PunctuationWords, WhitespaceWords,
                 WhitespaceSplitWords, FixedLengthWords, MetaspaceWords>;

// Cuts the pieces of `kText`. Throws what Pattern::find and Text::check throw.
void run_pre_tokenizers(const std::vector<PreTokenizer>& steps, Pieces& pieces);

}  // namespace llorch::tok
