// Tokens that are found in the text before anything else cuts it. Knows nothing of the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/pieces.h"

namespace llorch::tok {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space on its left
  bool rstrip = false;
  bool normalized = false;  // looked for in the normalized text
  bool special = false;
  std::string normalized_content;  // content, normalized if `normalized`
};

// Immutable; any thread.
class AddedTokens {
 public:
  // Throws Error{kCorruptFile} "file: added_tokens: ..." if two of them are found by the same text,
  // or one by none.
  AddedTokens(std::vector<AddedToken> tokens, const std::string& file);
  AddedTokens(AddedTokens&&) = default;

  // Cuts the tokens out of the pieces of `kText`: those looked for in the raw text, or those in the
  // normalized. With `parse_special` false special tokens are passed over, what their text overlaps
  // not being looked at again.
  void extract(Pieces& pieces, bool normalized, bool parse_special) const;
  bool any(bool normalized) const { return !(normalized ? normalized_ : raw_).nodes.empty(); }

  const AddedToken* find(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view content) const;
  bool is_special_content(std::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  // Finds the longest token at a place.
  struct Trie {
    struct Node {
      std::vector<std::pair<unsigned char, uint32_t>> next;
      int32_t token = -1;  // index into tokens_
    };
    std::vector<Node> nodes;
    bool starts[256] = {};
    bool add(std::string_view text, int32_t token);
    int32_t longest(std::string_view text, size_t at, size_t& end) const;
  };
  void extract_from(std::string_view text, size_t offset, const Trie& trie, bool parse_special,
                    std::vector<Piece>& out) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string_view, size_t> by_content_;  // views into tokens_
  Trie raw_, normalized_;
};

}  // namespace llorch::tok
