#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <functional>

#include "base/error.h"

namespace llorch::tok {
namespace {
constexpr uint32_t kEmpty = UINT32_MAX;
}  // namespace

size_t Vocabulary::slot_of(std::string_view token) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = std::hash<std::string_view>()(token) & mask;
  while (slots_[slot] != kEmpty && string_of(entries_[slots_[slot]]) != token) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

void Vocabulary::rehash(size_t slots) {
  slots_.assign(slots, kEmpty);
  for (size_t i = 0; i < entries_.size(); ++i) {
    slots_[slot_of(string_of(entries_[i]))] = static_cast<uint32_t>(i);
  }
}

void Vocabulary::reserve(size_t tokens) {
  size_t slots = 16;
  while (slots < tokens * 2) slots *= 2;
  entries_.reserve(tokens);
  if (slots > slots_.size()) rehash(slots);
}

// The slot of a token that may be added.
size_t Vocabulary::slot_for(std::string_view token) {
  if (slots_.size() < (entries_.size() + 1) * 2) rehash(std::max<size_t>(16, slots_.size() * 2));
  return slot_of(token);
}

void Vocabulary::append(std::string_view token, int32_t id, size_t slot) {
  slots_[slot] = static_cast<uint32_t>(entries_.size());
  entries_.push_back({strings_.size(), static_cast<uint32_t>(token.size()), id});
  strings_ += token;
}

bool Vocabulary::add(std::string_view token, int32_t id) {
  const size_t slot = slot_for(token);
  if (slots_[slot] != kEmpty) return false;
  append(token, id, slot);
  return true;
}

void Vocabulary::add_again(std::string_view token, int32_t id) {
  append(token, id, slot_for(token));
}

std::optional<int32_t> Vocabulary::index_ids() {
  by_id_.resize(entries_.size());
  for (size_t i = 0; i < by_id_.size(); ++i) by_id_[i] = static_cast<uint32_t>(i);
  std::sort(by_id_.begin(), by_id_.end(),
            [this](uint32_t a, uint32_t b) { return entries_[a].id < entries_[b].id; });
  end_id_ = by_id_.empty() ? 0 : entries_[by_id_.back()].id + 1;
  for (size_t i = 1; i < by_id_.size(); ++i) {
    const int32_t id = entries_[by_id_[i]].id;
    if (id == entries_[by_id_[i - 1]].id) return id;
  }
  return std::nullopt;
}

std::optional<int32_t> Vocabulary::id_of(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const uint32_t index = slots_[slot_of(token)];
  if (index == kEmpty) return std::nullopt;
  return entries_[index].id;
}

std::optional<std::string_view> Vocabulary::token_of(int32_t id) const {
  if (id < 0 || id >= end_id_) return std::nullopt;
  // Without gaps the id is the place.
  const auto place = static_cast<size_t>(id);
  if (place < by_id_.size() && entries_[by_id_[place]].id == id) {
    return string_of(entries_[by_id_[place]]);
  }
  const auto found = std::lower_bound(by_id_.begin(), by_id_.end(), id,
                                      [this](uint32_t i, int32_t x) { return entries_[i].id < x; });
  if (found == by_id_.end() || entries_[*found].id != id) return std::nullopt;
  return string_of(entries_[*found]);
}

Trie make_trie(const Vocabulary& vocabulary) {
  std::vector<Trie::Entry> entries;
  entries.reserve(vocabulary.size());
  vocabulary.for_each([&](std::string_view token, int32_t id) { entries.emplace_back(token, id); });
  return Trie(std::move(entries));
}

void throw_no_unknown_token() {
  throw Error(ErrorCode::kUnsupported,
              "[tokenizer] the text has a part that the vocabulary lacks, as it lacks the unknown "
              "token itself");
}

}  // namespace llorch::tok
