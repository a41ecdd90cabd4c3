#include "tokenizer/added_token_list.h"

#include <utility>

namespace llorch::tok {

void complete(AddedToken& token, const Vocabulary& vocabulary,
              const std::vector<Normalizer>& normalizers, int32_t& next_id) {
  const std::optional<int32_t> known = vocabulary.id_of(token.content);
  token.id = known ? *known : next_id++;
  token.normalized_content = token.content;
  if (token.normalized) {
    Text text = original_text(token.content);
    run_normalizers(normalizers, text);
    token.normalized_content = std::move(text.bytes);
  }
}

void AddedTokenList::put(AddedToken token) {
  if (token.content.empty()) return;
  const auto [place, is_new] = places_.try_emplace(token.content, tokens_.size());
  if (is_new) {
    tokens_.push_back(std::move(token));
  } else {
    tokens_[place->second] = std::move(token);
  }
}

void AddedTokenList::put_special(const std::string& content) {
  const auto known = places_.find(content);
  if (known != places_.end()) {
    tokens_[known->second].special = true;
    return;
  }
  AddedToken token;
  token.content = content;
  token.special = true;
  put(std::move(token));
}

AddedTokens AddedTokenList::make(const Vocabulary& vocabulary,
                                 const std::vector<Normalizer>& normalizers,
                                 const std::string& file) {
  int32_t next_id = vocabulary.end_id();
  for (AddedToken& token : tokens_) complete(token, vocabulary, normalizers, next_id);
  return AddedTokens(std::move(tokens_), file);
}

}  // namespace llorch::tok
