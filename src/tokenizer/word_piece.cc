#include "tokenizer/word_piece.h"

#include "tokenizer/unicode.h"

namespace llorch::tok {
WordPiece::WordPiece(Vocabulary vocabulary, WordPieceOptions options)
    : vocabulary_(std::move(vocabulary)),
      max_word_chars_(options.max_word_chars),
      unknown_id_(vocabulary_.id_of(options.unk_token)),
      trie_(make_trie(vocabulary_)),
      continuing_(trie_.walk(Trie::kRoot, options.continuing_prefix)) {}

bool WordPiece::cut(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const {
  for (size_t at = 0; at < word.size();) {
    uint32_t node = at == 0 ? Trie::kRoot : continuing_;
    size_t longest_end = at;
    int32_t longest = Trie::kNone;
    for (size_t end = at; end < word.size() && node != Trie::kNowhere;) {
      node = trie_.step(node, static_cast<unsigned char>(word[end++]));
      ++workspace.steps;
      if (node == Trie::kNowhere || trie_.value(node) == Trie::kNone) continue;
      longest = trie_.value(node);
      longest_end = end;
    }
    if (longest == Trie::kNone) return false;
    ids.push_back(longest);
    at = longest_end;
  }
  return true;
}

void WordPiece::encode(std::string_view word, Workspace& workspace,
                       std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  if (count_chars(word) <= max_word_chars_ && cut(word, workspace, ids)) return;
  ids.resize(before);
  if (!unknown_id_) throw_no_unknown_token();
  ids.push_back(*unknown_id_);
}

}  // namespace llorch::tok
