// What the fuzz targets of tokenizers ask of every one that was read.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

inline std::vector<int32_t> encode_in_range(const Tokenizer& tokenizer, std::string_view text,
                                            bool specials) {
  auto ids = tokenizer.encode(text, {.add_special_tokens = specials, .parse_special = specials});
  for (const int32_t id : ids) CHECK(id >= 0 && id < tokenizer.vocab_size());
  return ids;
}

// With special tokens and without.
inline void encode_and_decode(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool specials : {true, false}) {
    tokenizer.decode(encode_in_range(tokenizer, text, specials), !specials);
  }
}

}  // namespace llorch
