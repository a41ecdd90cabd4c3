#include "tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "tokenizer/byte_fallback.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr double kUnknownPenalty = 10.0;  // below the lowest score, as SentencePiece has it
constexpr int32_t kNone = -1;

}  // namespace

Unigram::Unigram(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options)
    : vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      options_(options),
      trie_(make_trie(vocabulary_)) {
  double least = std::numeric_limits<double>::infinity();
  for (const double score : scores_) least = std::min(least, score);
  unknown_score_ = least - kUnknownPenalty;
  for (unsigned byte = 0; byte < bytes_.size(); ++byte) {
    bytes_[byte] = vocabulary_.id_of(byte_token(byte)).value_or(kNone);
  }
}

// Of several best ways to a place the one that was found first stays, that is the one whose last
// token is the longest.
void Unigram::find_ways(std::string_view word, Workspace& workspace) const {
  auto& ways = workspace.ways;
  ways.assign(word.size() + 1, {});
  const auto offer = [&ways](size_t begin, size_t end, int32_t id, double score) {
    Workspace::Way& way = ways[end];
    if (way.id != kNone && !(score > way.score)) return;
    way = {score, id, static_cast<uint32_t>(begin)};
  };
  uint64_t steps = 0;
  for (size_t at = 0; at < word.size();) {
    const size_t next = at + char_bytes(word, at);
    const double till_here = ways[at].score;
    bool is_token = false;
    uint32_t node = Trie::kRoot;
    for (size_t end = at; end < word.size();) {
      node = trie_.step(node, static_cast<unsigned char>(word[end++]));
      ++steps;
      if (node == Trie::kNowhere) break;
      const int32_t id = trie_.value(node);
      if (id == Trie::kNone) continue;
      offer(at, end, id, scores_[static_cast<size_t>(id)] + till_here);
      is_token |= end == next;
    }
    if (!is_token) {
      const double score = unknown_score_ + till_here;
      if (ways[next].id == kNone || score > ways[next].score) {
        offer(at, next, unknown_id(), score);
      }
    }
    at = next;
  }
  workspace.steps += steps;
}

int32_t Unigram::unknown_id() const {
  if (!options_.unk_id) throw_no_unknown_token();
  return *options_.unk_id;
}

// As the library: neighbours that are unknown are looked up as one token.
void Unigram::append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
  if (const std::optional<int32_t> id = vocabulary_.id_of(text)) {
    ids.push_back(*id);
    return;
  }
  const auto id_of_byte = [this](char c) { return bytes_[static_cast<unsigned char>(c)]; };
  if (options_.byte_fallback &&
      std::all_of(text.begin(), text.end(), [&](char c) { return id_of_byte(c) != kNone; })) {
    for (const char c : text) ids.push_back(id_of_byte(c));
    return;
  }
  ids.push_back(*options_.unk_id);
}

void Unigram::encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const {
  find_ways(word, workspace);
  // From the last token back to the first; then the links point forward.
  auto& ways = workspace.ways;
  auto end = static_cast<uint32_t>(word.size());
  uint32_t follower = end;
  while (end > 0) {
    const uint32_t begin = ways[end].begin;
    ways[end].begin = follower;
    follower = end;
    end = begin;
  }
  // `follower` is now the end of the first token, and each token's way holds the end of the next.
  const auto size = static_cast<uint32_t>(word.size());
  uint32_t begin = 0;
  for (end = follower; begin < size;) {
    const int32_t id = ways[end].id;
    const bool unknown = options_.unk_id && id == *options_.unk_id;
    while (unknown && end < size && ways[ways[end].begin].id == id) end = ways[end].begin;
    if (unknown) {
      append_unknown(word.substr(begin, end - begin), ids);
    } else {
      ids.push_back(id);
    }
    begin = end;
    end = ways[end].begin;
  }
}

}  // namespace llorch::tok
