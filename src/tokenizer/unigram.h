// The Unigram model: the cut of one word whose tokens' scores have the largest sum. Knows nothing
// of how text was cut into words, nor of decoding.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/trie.h"
#include "tokenizer/vocabulary.h"

namespace llorch::tok {

struct UnigramOptions {
  std::optional<int32_t> unk_id;
  bool byte_fallback = false;  // unknown characters become their bytes' tokens <0x00> ... <0xFF>
};

// Immutable; any thread.
class Unigram {
 public:
  // Ids are the places in `scores`. `vocabulary` has been indexed; a token may have several ids, of
  // which the last one's score counts. options.unk_id is one of them.
  Unigram(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options);

  // Memory that words of one text share. Belongs to one thread.
  struct Workspace {
    explicit Workspace(size_t /*bytes*/) {}

    // The best way to a place of the word, known by its last token.
    struct Way {
      static constexpr int32_t kNone = -1;
      double score = 0;
      int32_t id = kNone;
      uint32_t begin = 0;
    };
    std::vector<Way> ways;
    uint64_t steps = 0;  // through the trie, all words together: what the time follows
  };
  // Appends the ids of `word`, valid UTF-8 under 2^31 bytes, in time linear in its length times
  // that of the longest token. Throws Error{kUnsupported} if the best way needs an unknown token
  // and the vocabulary has none.
  void encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void find_ways(std::string_view word, Workspace& workspace) const;
  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const;
  int32_t unknown_id() const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  UnigramOptions options_;
  Trie trie_;
  double unknown_score_ = 0;          // of a character that is no token
  std::array<int32_t, 256> bytes_{};  // byte tokens, kNone where missing
};

}  // namespace llorch::tok
