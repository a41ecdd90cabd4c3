// Changes text before it is cut: Unicode forms, replacements, prefixes. Knows nothing of tokens.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "tokenizer/charsmap.h"
#include "tokenizer/pieces.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {

struct ReplaceText {
  Pattern pattern;
  std::string content;
};
struct PrependText {
  std::string prefix;
  bool at_start_only = false;  // of the whole text
};
struct StripText {
  bool left, right;
};
struct LowercaseText {};
struct StripAccentsText {};  // combining marks go
struct NmtText {};           // SentencePiece's: control characters go, others become spaces
struct ByteLevelText {};     // each byte becomes its character of the byte-level alphabet
struct BertText {
  bool clean_text;            // control characters go, white space becomes spaces
  bool handle_chinese_chars;  // spaces around CJK ideographs
  bool strip_accents;
  bool lowercase;
};

// One step; a file's Sequence is laid out flat.
using Normalizer = std::variant<NormalForm, ReplaceText, PrependText, StripText, LowercaseText,
                                StripAccentsText, NmtText, ByteLevelText, BertText, Charsmap>;

// `text` after all of `steps`. Throws what Pattern::find and Text::check throw.
void run_normalizers(const std::vector<Normalizer>& steps, Text& text);

// Replaces each match; text.origin_bytes follows.
void replace_all(const Pattern& pattern, std::string_view content, Text& text);
// Puts `prefix` before a text that is not empty.
void prepend(std::string_view prefix, Text& text);

}  // namespace llorch::tok
