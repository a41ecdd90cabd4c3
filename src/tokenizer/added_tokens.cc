#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

// \w of the library: letters, marks, digits, connectors and the two joiners.
bool is_word(std::string_view text, size_t at) {
  const char32_t c = char_at(text, at);
  if (c < 0x80) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  }
  static const Pattern word = Pattern::regex(R"([\w\x{200c}\x{200d}])");
  std::vector<Stretch> found;
  word.find(text.substr(at, char_bytes(text, at)), found);
  return found[0].is_match;
}

// Where the white space that ends at `end` begins, looking no further back than `least`.
size_t spaces_before(std::string_view text, size_t end, size_t least) {
  while (end > least) {
    const size_t at = char_before(text, end);
    if (!is_whitespace(char_at(text, at))) break;
    end = at;
  }
  return end;
}

size_t spaces_after(std::string_view text, size_t at) {
  while (at < text.size() && is_whitespace(char_at(text, at))) at += char_bytes(text, at);
  return at;
}

}  // namespace

bool AddedTokens::Trie::add(std::string_view text, int32_t token) {
  if (nodes.empty()) nodes.emplace_back();
  starts[static_cast<unsigned char>(text[0])] = true;
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    auto& next = nodes[node].next;
    const auto found =
        std::find_if(next.begin(), next.end(), [byte](const auto& n) { return n.first == byte; });
    if (found != next.end()) {
      node = found->second;
      continue;
    }
    const auto made = static_cast<uint32_t>(nodes.size());
    next.emplace_back(byte, made);
    nodes.emplace_back();
    node = made;
  }
  if (nodes[node].token >= 0) return false;
  nodes[node].token = token;
  return true;
}

int32_t AddedTokens::Trie::longest(std::string_view text, size_t at, size_t& end) const {
  int32_t token = -1;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto& next = nodes[node].next;
    const auto found =
        std::find_if(next.begin(), next.end(), [byte](const auto& n) { return n.first == byte; });
    if (found == next.end()) break;
    node = found->second;
    if (nodes[node].token >= 0) {
      token = nodes[node].token;
      end = i + 1;
    }
  }
  return token;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const std::string& file)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    by_id_.emplace(token.id, i);
    by_content_.emplace(token.content, i);
    const std::string& text = token.normalized ? token.normalized_content : token.content;
    Trie& trie = token.normalized ? normalized_ : raw_;
    if (text.empty() || !trie.add(text, static_cast<int32_t>(i))) {
      throw Error(ErrorCode::kCorruptFile,
                  file + ": added_tokens: the token of id " + std::to_string(token.id) +
                      (text.empty() ? " is empty once normalized" : " has the text of another"));
    }
  }
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

std::optional<int32_t> AddedTokens::id_of(std::string_view content) const {
  const auto found = by_content_.find(content);
  if (found == by_content_.end()) return std::nullopt;
  return tokens_[found->second].id;
}

bool AddedTokens::is_special_content(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found != by_content_.end() && tokens_[found->second].special;
}

void AddedTokens::extract_from(std::string_view text, size_t offset, const Trie& trie,
                               bool parse_special, std::vector<Piece>& out) const {
  size_t done = 0;
  size_t spaces_from = 1, spaces_to = 0;
  const auto put = [&](size_t begin, size_t end, int32_t id) {
    if (begin < end) out.push_back({offset + begin, offset + end, id});
  };
  for (size_t at = 0; at < text.size();) {
    size_t end = 0;
    const int32_t found =
        trie.starts[static_cast<unsigned char>(text[at])] ? trie.longest(text, at, end) : -1;
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = at;
    at = end;  // whatever becomes of this match, the search goes on behind it
    if (token.special && !parse_special) continue;
    if (token.single_word && ((begin > 0 && is_word(text, char_before(text, begin))) ||
                              (end < text.size() && is_word(text, end)))) {
      continue;
    }
    // Spaces that the match before took stay with it.
    if (token.lstrip) begin = std::max(spaces_before(text, begin, done), done);
    if (token.rstrip) {
      // Tokens of white space would otherwise scan the same run again and again.
      if (end < spaces_from || end > spaces_to) {
        spaces_from = end;
        spaces_to = spaces_after(text, end);
      }
      end = spaces_to;
    }
    put(done, begin, kText);
    put(begin, end, token.id);
    done = end;
  }
  put(done, text.size(), kText);
}

void AddedTokens::extract(Pieces& pieces, bool normalized, bool parse_special) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  if (trie.nodes.empty()) return;
  std::vector<Piece> cut;
  for (const Piece& piece : pieces.pieces) {
    if (piece.id == kText) {
      extract_from(pieces.view(piece), piece.begin, trie, parse_special, cut);
    } else {
      cut.push_back(piece);
    }
  }
  pieces.pieces = std::move(cut);
}

}  // namespace llorch::tok
