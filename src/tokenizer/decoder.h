// Token strings back to text. Knows nothing of ids.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/regex.h"

namespace llorch::tok {

struct ByteLevelDecoder {};
struct ByteFallbackDecoder {};
struct FuseDecoder {};
struct StripDecoder {
  std::string content;  // one character
  size_t start, stop;   // at most so many of them at the start and end of each token
};
struct ReplaceDecoder {
  Pattern pattern;
  std::string content;
};
struct MetaspaceDecoder {
  std::string replacement;  // one character
  bool drop_first;          // marks of the first token give nothing instead of spaces
};
struct WordPieceDecoder {
  std::string prefix;  // of a token that continues a word; any other but the first gets a space
  bool cleanup;        // no space before punctuation and English contractions
};

// One step; a file's Sequence is laid out flat.
using Decoder = std::variant<ByteLevelDecoder, ByteFallbackDecoder, FuseDecoder, StripDecoder,
                             ReplaceDecoder, MetaspaceDecoder, WordPieceDecoder>;

// The text of a whole output. Without steps the library puts a space between tokens; `no_decoder`
// tells that from a Sequence without members.
std::string decode_tokens(const std::vector<Decoder>& steps, bool no_decoder,
                          std::vector<std::string> tokens);

// The bytes that one token adds to a text that has begun and goes on. Throws Error{kUnsupported} if
// they are absurdly many.
std::string running_bytes(const std::vector<Decoder>& steps, bool no_decoder,
                          std::string_view token);

}  // namespace llorch::tok
