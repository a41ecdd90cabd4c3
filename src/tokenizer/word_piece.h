// The WordPiece model: a word is cut into the longest tokens from its start, or is unknown as a
// whole. Knows nothing of how text was cut into words, nor of decoding.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/trie.h"
#include "tokenizer/vocabulary.h"

namespace llorch::tok {

struct WordPieceOptions {
  std::string unk_token;
  std::string continuing_prefix;  // how a token that continues a word begins in the vocabulary
  uint64_t max_word_chars = 100;  // longer words are unknown
};

// Immutable; any thread.
class WordPiece {
 public:
  // `vocabulary` has been indexed.
  WordPiece(Vocabulary vocabulary, WordPieceOptions options);

  // Belongs to one thread.
  struct Workspace {
    explicit Workspace(size_t /*bytes*/) {}
    uint64_t steps = 0;  // through the trie, all words together: what the time follows
  };
  // Appends the ids of `word`, valid UTF-8, in time linear in its length times that of the longest
  // token. Throws Error{kUnsupported} if it is unknown and the unknown token is not in the
  // vocabulary.
  void encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  bool cut(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  uint64_t max_word_chars_;
  std::optional<int32_t> unknown_id_;
  Trie trie_;
  uint32_t continuing_;  // where the tokens with the prefix begin
};

}  // namespace llorch::tok
