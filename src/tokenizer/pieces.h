// A text on its way to tokens: one buffer and the pieces it is cut into. Knows nothing of what
// cuts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llorch::tok {

// Valid UTF-8.
struct Text {
  std::string bytes;
  // How many of the first bytes stand for the very first character of the text that was asked for;
  // the library's Metaspace looks at that.
  size_t origin_bytes = 0;
  // Steps that make text longer could, chained by a damaged file, make it as long as they like.
  size_t most_bytes = 0;

  void set(std::string new_bytes, size_t new_origin_bytes) {
    check(new_bytes.size());
    bytes = std::move(new_bytes);
    origin_bytes = new_origin_bytes;
  }
  // Throws Error{kBadRequest} above `most_bytes`.
  void check(size_t new_size) const;
};

// A text as it was asked for. Throws Error{kBadRequest} if it is longer than any request's.
Text original_text(std::string bytes);

struct Piece {
  size_t begin, end;  // of the buffer; never empty
  int32_t id;         // kText, or the added token that was found here
};
inline constexpr int32_t kText = -1;

struct Pieces {
  Text text;
  std::vector<Piece> pieces;

  // The part of the text that a piece is, to be changed by itself.
  Text part(const Piece& piece) const {
    const size_t origin =
        piece.begin < text.origin_bytes ? std::min(piece.end, text.origin_bytes) - piece.begin : 0;
    return {std::string(view(piece)), origin, text.most_bytes};
  }
  std::string_view view(const Piece& piece) const {
    return std::string_view(text.bytes).substr(piece.begin, piece.end - piece.begin);
  }
};

}  // namespace llorch::tok
