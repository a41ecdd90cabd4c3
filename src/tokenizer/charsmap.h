// SentencePiece's precompiled character map: rewrites text by rules that a model file holds as one
// block of bytes. Knows nothing of files or tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pieces.h"

namespace llorch::tok {

// The block contradicts itself; what() says how.
class DamagedCharsmap : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Immutable; any thread.
class Charsmap {
 public:
  // The bytes of `precompiled_charsmap`: the size of a double-array trie, the trie, and the new
  // texts that its values point to, each ending in NUL. Throws DamagedCharsmap.
  static Charsmap parse(std::string_view block);

  // Rewrites each extended grapheme cluster of less than six bytes, or else each character, by the
  // shortest rule that it begins with. The rest of a cluster that a rule matches is dropped, as the
  // library does. text.origin_bytes follows. Throws what Text::check throws.
  void rewrite(Text& text) const;

 private:
  std::optional<std::string_view> find(std::string_view part) const;
  void check_reachable() const;
  void check_value(size_t node) const;

  std::vector<uint32_t> units_;  // the trie
  std::string texts_;
};

}  // namespace llorch::tok
