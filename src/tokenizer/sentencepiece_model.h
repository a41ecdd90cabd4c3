// What a SentencePiece file (tokenizer.model) holds. Knows nothing of how it tokenizes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llorch::tok {

// The numbers are the file's own.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct SentencePieceModel {
  struct Piece {
    std::string_view text;  // valid UTF-8, not empty
    float score = 0;        // finite
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> pieces;  // by id

  enum class Kind { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  Kind kind = Kind::kUnigram;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  // What the file names them; -1: it has none.
  int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;

  std::string_view charsmap;  // may be empty
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// The views are into `bytes`. Throws Error{kCorruptFile} naming `file` and the place.
SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& file);

}  // namespace llorch::tok
