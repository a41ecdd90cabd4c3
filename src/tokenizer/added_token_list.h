// Collects added tokens that several places of a model's files tell of. Knows nothing of files.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/vocabulary.h"

namespace llorch::tok {

// Gives the token its id, the vocabulary's or else the next, and its content as normalized.
void complete(AddedToken& token, const Vocabulary& vocabulary,
              const std::vector<Normalizer>& normalizers, int32_t& next_id);

// The parts of `AddedToken` that are given: what is said later of a token replaces what was said
// before, at the token's first place.
class AddedTokenList {
 public:
  void put(AddedToken token);
  // The token is special; the rest of what is known of it holds.
  void put_special(const std::string& content);
  // Ids: the vocabulary's, or in order from its end. Throws what AddedTokens throws.
  AddedTokens make(const Vocabulary& vocabulary, const std::vector<Normalizer>& normalizers,
                   const std::string& file);

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> places_;
};

}  // namespace llorch::tok
