// The WordLevel model: a word is a token or unknown. Knows nothing of how text was cut into words.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace llorch::tok {

// Immutable; any thread.
class WordLevel {
 public:
  // `vocabulary` has been indexed.
  WordLevel(Vocabulary vocabulary, std::string_view unk_token);

  struct Workspace {
    explicit Workspace(size_t /*bytes*/) {}
  };
  // Appends the id of `word`. Throws Error{kUnsupported} if it is unknown and the unknown token is
  // not in the vocabulary.
  void encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
  std::optional<int32_t> unknown_id_;
};

}  // namespace llorch::tok
