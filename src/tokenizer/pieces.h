// A text on its way to tokens: one buffer and the pieces it is cut into. Knows nothing of what
// cuts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llorch::tok {

// Valid UTF-8. `origin_bytes`: how many of the first bytes stand for the very first character of
// the text that was asked for; the library's Metaspace looks at that.
struct Text {
  std::string bytes;
  size_t origin_bytes = 0;
};

struct Piece {
  size_t begin, end;  // of the buffer; never empty
  int32_t id;         // kText, or the added token that was found here
};
inline constexpr int32_t kText = -1;

struct Pieces {
  Text text;
  std::vector<Piece> pieces;

  std::string_view view(const Piece& piece) const {
    return std::string_view(text.bytes).substr(piece.begin, piece.end - piece.begin);
  }
};

}  // namespace llorch::tok
