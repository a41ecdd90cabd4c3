#include "tokenizer/word_level.h"

namespace llorch::tok {

WordLevel::WordLevel(Vocabulary vocabulary, std::string_view unk_token)
    : vocabulary_(std::move(vocabulary)), unknown_id_(vocabulary_.id_of(unk_token)) {}

void WordLevel::encode(std::string_view word, Workspace& /*workspace*/,
                       std::vector<int32_t>& ids) const {
  const std::optional<int32_t> id = vocabulary_.id_of(word);
  if (!id && !unknown_id_) throw_no_unknown_token();
  ids.push_back(id ? *id : *unknown_id_);
}

}  // namespace llorch::tok
