#include "engine/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <random>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

constexpr int kStartsSeen = 16;  // where many contents follow one block

SipKey random_key() {
  std::random_device random;
  SipKey key;
  for (uint64_t& word : key) word = uint64_t{random()} << 32 | random();
  return key;
}

size_t sum(std::span<const int32_t> counts) {
  return static_cast<size_t>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
}

}  // namespace

HashBuckets::HashBuckets(size_t entries)
    : heads_(std::bit_ceil(entries), -1), next_(entries, -1), previous_(entries, -1) {}

void HashBuckets::add(const Hash128& hash, int32_t entry) {
  int32_t& head = heads_[bucket(hash)];
  next_[static_cast<size_t>(entry)] = head;
  previous_[static_cast<size_t>(entry)] = -1;
  if (head >= 0) previous_[static_cast<size_t>(head)] = entry;
  head = entry;
}

void HashBuckets::remove(const Hash128& hash, int32_t entry) {
  const int32_t next = next_[static_cast<size_t>(entry)];
  const int32_t previous = previous_[static_cast<size_t>(entry)];
  if (next >= 0) previous_[static_cast<size_t>(next)] = previous;
  (previous >= 0 ? next_[static_cast<size_t>(previous)] : heads_[bucket(hash)]) = next;
}

PrefixCache::PrefixCache(std::span<const int32_t> blocks, int32_t block_tokens)
    : block_tokens_(static_cast<size_t>(block_tokens)),
      key_(random_key()),
      entries_(sum(blocks)),
      free_(entries_.size()),
      tokens_(entries_.size() * block_tokens_),
      blocks_(entries_.size() * blocks.size(), -1),
      by_hash_(entries_.size()),
      by_before_(entries_.size()) {
  for (const int32_t count : blocks) entry_of_.emplace_back(static_cast<size_t>(count), -1);
  std::iota(free_.rbegin(), free_.rend(), 0);
}

Hash128 PrefixCache::hash(const BlockContent& content) const {
  CHECK(content.tokens.size() == block_tokens_);
  const Hash128 tokens = sip_hash(key_, std::as_bytes(content.tokens));
  const uint64_t all[] = {content.before[0], content.before[1], tokens[0], tokens[1],
                          static_cast<uint64_t>(content.rope_length)};
  return sip_hash(key_, std::as_bytes(std::span(all)));
}

int32_t PrefixCache::find(const Hash128& hash, const BlockContent& content) const {
  for (int32_t e = by_hash_.first(hash); e >= 0; e = by_hash_.next(e)) {
    const Entry& entry = entries_[static_cast<size_t>(e)];
    if (entry.hash == hash && entry.before == content.before &&
        entry.rope_length == content.rope_length && std::ranges::equal(tokens(e), content.tokens)) {
      return e;
    }
  }
  return -1;
}

bool PrefixCache::in_every_group(int32_t entry) const {
  return entries_[static_cast<size_t>(entry)].groups == static_cast<int32_t>(entry_of_.size());
}

PrefixCache::Start PrefixCache::find_start(const BlockContent& content) const {
  Start best;
  int32_t e = by_before_.first(content.before);
  for (int seen = 0; e >= 0 && seen < kStartsSeen; e = by_before_.next(e), ++seen) {
    const Entry& entry = entries_[static_cast<size_t>(e)];
    if (entry.before != content.before || entry.rope_length != content.rope_length ||
        !in_every_group(e)) {
      continue;
    }
    const auto end = std::ranges::mismatch(tokens(e), content.tokens).in2;
    const auto same = static_cast<int32_t>(end - content.tokens.begin());
    if (same > best.tokens) best = {e, same};
  }
  return best;
}

int32_t PrefixCache::new_entry(const Hash128& hash, const BlockContent& content) {
  const int32_t entry = free_.back();
  free_.pop_back();
  entries_[static_cast<size_t>(entry)] = {hash, content.before, content.rope_length, 0};
  std::ranges::copy(
      content.tokens,
      tokens_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(entry) * block_tokens_));
  by_hash_.add(hash, entry);
  by_before_.add(content.before, entry);
  return entry;
}

bool PrefixCache::add(const Hash128& hash, const BlockContent& content, size_t group,
                      int32_t block) {
  int32_t entry = find(hash, content);
  if (entry >= 0 && this->block(entry, group) >= 0) return false;
  int32_t& entry_of_block = entry_of_[group].at(static_cast<size_t>(block));
  CHECK(entry_of_block < 0);
  if (entry < 0) entry = new_entry(hash, content);
  entry_of_block = entry;
  blocks_[place(entry, group)] = block;
  ++entries_[static_cast<size_t>(entry)].groups;
  return true;
}

void PrefixCache::remove(size_t group, int32_t block) {
  int32_t& entry_of_block = entry_of_[group].at(static_cast<size_t>(block));
  if (entry_of_block < 0) return;
  const int32_t e = std::exchange(entry_of_block, -1);
  blocks_[place(e, group)] = -1;
  Entry& entry = entries_[static_cast<size_t>(e)];
  if (--entry.groups > 0) return;
  by_hash_.remove(entry.hash, e);
  by_before_.remove(entry.before, e);
  free_.push_back(e);
}

}  // namespace llorch
