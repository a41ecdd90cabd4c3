#include "tokenizer/bpe.h"

#include <algorithm>
#include <functional>

#include "tokenizer/byte_fallback.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr int32_t kNone = -1;
constexpr int32_t kRemoved = -1;
constexpr uint64_t kFree = UINT64_MAX;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

size_t hash_of(uint64_t pair) { return static_cast<size_t>((pair * 0x9E3779B97F4A7C15ULL) >> 20); }

constexpr size_t kPairBits = size_t{1} << 20;

size_t bit_of(char32_t left, char32_t right) {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | right;
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15ULL) >> 44);
}
static_assert(kPairBits == size_t{1} << (64 - 44));

}  // namespace

Bpe::Workspace::Workspace(size_t bytes) {
  constexpr size_t kFewest = 64, kMost = 16384, kWordBytes = 6;
  const size_t words = bytes / kWordBytes;
  if (words < kFewest) return;
  size_t size = kFewest;
  while (size < words && size < kMost) size *= 2;
  known.resize(size);
}

Bpe::Bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, BpeOptions options)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
  low_chars_.fill(kNone);
  for (char32_t c = 0; c < low_chars_.size(); ++c) {
    std::string token;
    append_utf8(token, c);
    low_chars_[c] = vocabulary_.id_of(token).value_or(kNone);
  }
  if (options_.byte_fallback) {
    bytes_.emplace();
    for (unsigned byte = 0; byte < 256; ++byte) {
      (*bytes_)[byte] = vocabulary_.id_of(byte_token(byte)).value_or(kNone);
    }
  }
  keeps_all_ = bytes_ && std::find(bytes_->begin(), bytes_->end(), kNone) == bytes_->end();
  add_merges(merges);
  note_tokens();
}

void Bpe::add_merges(const std::vector<BpeMerge>& merges) {
  constexpr size_t kAhead = 16;  // the table is larger than a cache
  size_t slots = 16;
  while (slots < merges.size() * 2) slots *= 2;
  merges_.assign(slots, Merge{kFree, 0, 0});
  merged_by_rank_.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    if (i + kAhead < merges.size()) {
      const BpeMerge& later = merges[i + kAhead];
      __builtin_prefetch(&merges_[hash_of(pair_of(later.left, later.right)) & (slots - 1)], 1);
    }
    add_merge(merges[i], static_cast<uint32_t>(i));
    merged_by_rank_.push_back(merges[i].merged);
  }
}

void Bpe::note_tokens() {
  std::vector<bool> is_merged(static_cast<size_t>(vocabulary_.end_id()));
  for (const int32_t id : merged_by_rank_) is_merged[static_cast<size_t>(id)] = true;
  joined_.resize(kPairBits / 64);
  vocabulary_.for_each([&](std::string_view token, int32_t id) {
    longest_token_ = std::max(longest_token_, token.size());
    if (is_merged[static_cast<size_t>(id)]) note_pairs(token);
  });
}

void Bpe::note_pairs(std::string_view token) {
  if (token.empty()) return;
  char32_t left = char_at(token, 0);
  for (size_t at = char_bytes(token, 0); at < token.size(); at += char_bytes(token, at)) {
    const char32_t right = char_at(token, at);
    const size_t bit = bit_of(left, right);
    joined_[bit / 64] |= uint64_t{1} << bit % 64;
    left = right;
  }
}

// Whether the two may end up in one token; only if so, on which words their neighbours are matters.
bool Bpe::may_join(char32_t left, char32_t right) const {
  const size_t bit = bit_of(left, right);
  return (joined_[bit / 64] >> bit % 64 & 1) != 0;
}

// Beside a character that is dropped, or an unknown token that waits, others are neighbours than
// those of the text.
bool Bpe::is_known(std::string_view character) const {
  return keeps_all_ || char_id(character).has_value();
}

// A pair that is listed twice has its last rank.
void Bpe::add_merge(const BpeMerge& merge, uint32_t rank) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  const size_t mask = merges_.size() - 1;
  size_t slot = hash_of(pair) & mask;
  while (merges_[slot].pair != kFree && merges_[slot].pair != pair) slot = (slot + 1) & mask;
  merges_[slot] = {pair, rank, merge.merged};
}

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t slot = hash_of(pair) & mask; merges_[slot].pair != kFree; slot = (slot + 1) & mask) {
    if (merges_[slot].pair == pair) return &merges_[slot];
  }
  return nullptr;
}

std::optional<int32_t> Bpe::char_id(std::string_view character) const {
  if (character.size() <= 2) {
    const char32_t c = char_at(character, 0);
    if (c < low_chars_.size()) {
      return low_chars_[c] == kNone ? std::nullopt : std::optional(low_chars_[c]);
    }
  }
  return vocabulary_.id_of(character);
}

int32_t Bpe::unknown_id() const {
  const std::optional<int32_t> id = vocabulary_.id_of(*options_.unk_token);
  if (!id) throw_no_unknown_token();
  return *id;
}

void Bpe::make_symbols(std::string_view word, Workspace& workspace) const {
  auto& symbols = workspace.symbols;
  symbols.clear();
  const auto add = [&symbols](int32_t id) {
    const auto place = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, place - 1, place + 1});
  };
  // As the library: an unknown token waits for the next known character, also while bytes of other
  // unknown characters go past it.
  std::optional<int32_t> waiting;
  for (size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, char_bytes(word, at));
    at += character.size();
    if (const std::optional<int32_t> id = char_id(character)) {
      if (waiting) add(*waiting);
      waiting.reset();
      add(*id);
      continue;
    }
    if (bytes_) {
      const auto id_of_byte = [this](char c) { return (*bytes_)[static_cast<unsigned char>(c)]; };
      if (std::all_of(character.begin(), character.end(),
                      [&](char c) { return id_of_byte(c) != kNone; })) {
        for (const char c : character) add(id_of_byte(c));
        continue;
      }
    }
    if (!options_.unk_token) continue;  // the library drops the character
    if (waiting && !options_.fuse_unk) add(*waiting);
    waiting = unknown_id();
  }
  if (waiting) add(*waiting);
}

// As merge_many() for a short word, where a scan beats a heap. (There a stale entry could only make
// the token that it was put in for if a merge made nothing longer.)
void Bpe::merge_few(Workspace& workspace) const {
  constexpr uint32_t kNever = UINT32_MAX;
  auto& symbols = workspace.symbols;
  auto& ranks = workspace.ranks;  // of each symbol and the next
  const auto rank_at = [&](size_t i) {
    if (i + 1 >= symbols.size()) return kNever;
    const Merge* merge = find_merge(symbols[i].id, symbols[i + 1].id);
    return merge == nullptr ? kNever : merge->rank;
  };
  ranks.resize(symbols.size());
  for (size_t i = 0; i < symbols.size(); ++i) ranks[i] = rank_at(i);
  while (true) {
    const auto least = std::min_element(ranks.begin(), ranks.end());
    if (least == ranks.end() || *least == kNever) return;
    const auto i = least - ranks.begin();
    symbols[static_cast<size_t>(i)].id = merged_by_rank_[*least];
    symbols.erase(symbols.begin() + i + 1);
    ranks.erase(ranks.begin() + i + 1);
    ranks[static_cast<size_t>(i)] = rank_at(static_cast<size_t>(i));
    if (i > 0) ranks[static_cast<size_t>(i) - 1] = rank_at(static_cast<size_t>(i) - 1);
  }
}

// Merges the pair of lowest rank, leftmost first, until none is left: a heap of pairs over a linked
// list, entries that have become stale being passed over when their turn comes.
void Bpe::merge_many(Workspace& workspace) const {
  auto& symbols = workspace.symbols;
  auto& heap = workspace.heap;
  const auto end = static_cast<int32_t>(symbols.size());
  heap.clear();
  const auto entry = [this, &symbols](int32_t left, int32_t right) -> std::optional<uint64_t> {
    const Merge* merge =
        find_merge(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge == nullptr) return std::nullopt;
    return static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left);
  };
  for (int32_t i = 0; i + 1 < end; ++i) {
    if (const auto found = entry(i, i + 1)) heap.push_back(*found);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](int32_t left, int32_t right) {
    if (const auto found = entry(left, right)) {
      heap.push_back(*found);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto place = static_cast<int32_t>(top & UINT32_MAX);
    const int32_t merged = merged_by_rank_[top >> 32];
    Workspace::Symbol& left = symbols[static_cast<size_t>(place)];
    if (left.id == kRemoved || left.next == end) continue;
    Workspace::Symbol& right = symbols[static_cast<size_t>(left.next)];
    // As the library: an entry is stale if what stands there now makes another token; another pair
    // that makes the same token keeps the old entry's turn.
    const Merge* now = find_merge(left.id, right.id);
    if (now == nullptr || now->merged != merged) continue;
    left.id = merged;
    left.next = right.next;
    right.id = kRemoved;
    if (left.next != end) symbols[static_cast<size_t>(left.next)].previous = place;
    if (left.previous >= 0) push(left.previous, place);
    if (left.next != end) push(place, left.next);
  }
}

void Bpe::encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges && word.size() <= longest_token_) {
    if (const std::optional<int32_t> id = vocabulary_.id_of(word)) {
      ids.push_back(*id);
      return;
    }
  }
  if (word.size() <= Workspace::Known::kMaxBytes) {
    encode_stretch(word, workspace, ids);
    return;
  }
  // No token lies across two characters that no merged token has side by side: what is before and
  // what is after are encoded by themselves. So a whole text that is one word to SentencePiece is
  // cut into short ones, most of which are known.
  size_t begin = 0, before = 0;
  for (size_t at = char_bytes(word, 0); at < word.size();) {
    const size_t next = at + char_bytes(word, at);
    if (!may_join(char_at(word, before), char_at(word, at)) &&
        is_known(word.substr(before, at - before)) && is_known(word.substr(at, next - at))) {
      encode_stretch(word.substr(begin, at - begin), workspace, ids);
      begin = at;
    }
    before = at;
    at = next;
  }
  encode_stretch(word.substr(begin), workspace, ids);
}

void Bpe::encode_stretch(std::string_view word, Workspace& workspace,
                         std::vector<int32_t>& ids) const {
  Workspace::Known* known = nullptr;
  if (!workspace.known.empty() && word.size() <= Workspace::Known::kMaxBytes) {
    const size_t hash = std::hash<std::string_view>()(word);
    known = &workspace.known[hash & (workspace.known.size() - 1)];
    if (std::string_view(known->word.data(), known->bytes) == word) {
      ids.insert(ids.end(), known->ids.begin(), known->ids.begin() + known->count);
      return;
    }
  }
  make_symbols(word, workspace);
  constexpr size_t kFew = 24;
  if (workspace.symbols.size() <= kFew) {
    merge_few(workspace);
  } else {
    merge_many(workspace);
  }
  const size_t first = ids.size();
  for (const Workspace::Symbol& symbol : workspace.symbols) {
    if (symbol.id != kRemoved) ids.push_back(symbol.id);
  }
  if (known != nullptr && ids.size() - first <= Workspace::Known::kMaxIds) {
    known->bytes = static_cast<uint8_t>(word.size());
    std::copy(word.begin(), word.end(), known->word.begin());
    known->count = static_cast<uint32_t>(ids.size() - first);
    std::copy(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), known->ids.begin());
  }
}

}  // namespace llorch::tok
