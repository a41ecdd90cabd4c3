#include "engine/kv_blocks.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

// The most blocks that so many tokens in a row can touch.
int64_t blocks_touched(int64_t tokens, int32_t block_tokens) {
  return (tokens + block_tokens - 2) / block_tokens + 1;
}

}  // namespace

int32_t KvShape::needed(size_t group, int32_t tokens) const {
  const int32_t all = tokens / block_tokens + (tokens % block_tokens != 0);
  const int64_t window = groups[group].window;
  if (window == 0) return all;
  return static_cast<int32_t>(
      std::min<int64_t>(all, blocks_touched(window + step_tokens - 1, block_tokens)));
}

KvBlocks::KvBlocks(KvShape shape, std::span<const int32_t> blocks)
    : shape_(std::move(shape)), cache_(blocks, shape_.block_tokens) {
  CHECK(!blocks.empty() && blocks.size() == shape_.groups.size());
  for (size_t g = 0; g < blocks.size(); ++g) {
    managers_.emplace_back(blocks[g], shape_.block_tokens,
                           [this, g](int32_t block) { cache_.remove(g, block); });
  }
}

bool KvBlocks::fits(int32_t tokens) const {
  for (size_t g = 0; g < groups(); ++g) {
    if (shape_.needed(g, tokens) > managers_[g].total()) return false;
  }
  return true;
}

int32_t KvBlocks::findable(Sequence& sequence) {
  const Hit hit = look_up(sequence);
  return hit.blocks * shape_.block_tokens + hit.start.tokens;
}

bool KvBlocks::awaits(Sequence& sequence, const Sequence& other) {
  const auto at = static_cast<size_t>(other.computed / shape_.block_tokens);
  extend_chain(sequence, sequence.known() / shape_.block_tokens);
  if (at >= std::min(other.chain.size(), sequence.chain.size())) return false;
  return other.chain[at] == sequence.chain[at] &&
         look_up(sequence).blocks == static_cast<int32_t>(at);
}

bool KvBlocks::has_room(Sequence& sequence, std::span<const int32_t> spare) {
  return look_up_if_room(sequence, spare).has_value();
}

bool KvBlocks::begin(Sequence& sequence, std::span<const int32_t> spare) {
  const std::optional<Hit> hit = look_up_if_room(sequence, spare);
  if (!hit) return false;
  sequence.computed = hit->blocks * shape_.block_tokens + hit->start.tokens;
  share(sequence, *hit);
  if (sequence.cached_tokens < 0) {
    sequence.cached_tokens = sequence.computed;
    query_tokens_ += static_cast<uint64_t>(sequence.known());
    hit_tokens_ += static_cast<uint64_t>(sequence.computed);
  }
  return true;
}

std::optional<KvBlocks::Hit> KvBlocks::look_up_if_room(Sequence& sequence,
                                                       std::span<const int32_t> spare) {
  Hit hit = look_up(sequence);
  if (fits(sequence, hit, spare)) return hit;
  hit.start = {};  // what is to be copied takes a place of its own until it is
  if (fits(sequence, hit, spare)) return hit;
  return std::nullopt;
}

KvBlocks::Hit KvBlocks::look_up(Sequence& sequence) {
  // One token at least is computed: the next one is sampled from its row.
  const int32_t most = (sequence.known() - 1) / shape_.block_tokens;
  extend_chain(sequence, sequence.known() / shape_.block_tokens);
  found_.clear();
  in_a_row_.assign(groups(), 0);
  int32_t usable = 0;
  for (int32_t i = 0; i < most; ++i) {
    const int32_t entry = cache_.find(sequence.chain[static_cast<size_t>(i)],
                                      content(sequence, i, shape_.block_tokens));
    found_.push_back(entry);
    bool all_seen = entry >= 0, goes_on = true;
    for (size_t g = 0; g < groups(); ++g) {
      const bool there = entry >= 0 && cache_.block(entry, g) >= 0;
      in_a_row_[g] = there ? in_a_row_[g] + 1 : 0;
      all_seen &= in_a_row_[g] >= i + 1 - first_seen(g, (i + 1) * shape_.block_tokens);
      goes_on &= there || shape_.groups[g].window > 0;
    }
    if (all_seen) usable = i + 1;
    if (!goes_on) break;
  }
  return {usable, find_start(sequence, usable)};
}

PrefixCache::Start KvBlocks::find_start(Sequence& sequence, int32_t blocks) const {
  const int32_t first = blocks * shape_.block_tokens;
  const int32_t tokens = std::min(sequence.known() - first, shape_.block_tokens);
  if (sequence.known() == first + shape_.block_tokens) {
    // All of it is known and may be there: only the last token's row is wanted.
    const int32_t entry =
        cache_.find(sequence.chain[static_cast<size_t>(blocks)], content(sequence, blocks, tokens));
    if (tokens > 1 && entry >= 0 && cache_.in_every_group(entry)) return {entry, tokens - 1};
  }
  return cache_.find_start(
      content(sequence, blocks, std::min(tokens, sequence.known() - 1 - first)));
}

bool KvBlocks::fits(const Sequence& sequence, const Hit& hit,
                    std::span<const int32_t> spare) const {
  for (size_t g = 0; g < groups(); ++g) {
    const auto is_held = [&](int32_t entry) { return managers_[g].held(cache_.block(entry, g)); };
    int32_t wanted = needed(g, sequence) + spare[g];
    // In a window others' blocks help for a while only: then own ones take their place.
    for (int32_t i = 0; shape_.groups[g].window == 0 && i < hit.blocks; ++i) {
      wanted -= is_held(found_[static_cast<size_t>(i)]);
    }
    if (hit.start.tokens > 0) wanted += !is_held(hit.start.entry);
    if (wanted > free(g)) return false;
  }
  return true;
}

void KvBlocks::share(Sequence& sequence, const Hit& hit) {
  sequence.kv.resize(groups());
  for (size_t g = 0; g < groups(); ++g) {
    BlockTable& table = sequence.kv[g];
    CHECK(table.blocks.empty());
    table.gone = std::min(first_seen(g, sequence.computed), hit.blocks);
    table.blocks.assign(static_cast<size_t>(table.gone), -1);
    for (int32_t i = table.gone; i < hit.blocks; ++i) {
      table.blocks.push_back(cache_.block(found_[static_cast<size_t>(i)], g));
      managers_[g].hold(table.blocks.back());
    }
    const int32_t from = hit.start.tokens > 0 ? cache_.block(hit.start.entry, g) : -1;
    if (from >= 0) managers_[g].hold(from);
    managers_[g].grow(table, table_length(g, sequence.computed, sequence.known()));
    if (from >= 0) copies_.push_back({g, from, table.blocks[static_cast<size_t>(hit.blocks)]});
  }
}

bool KvBlocks::hold(std::vector<BlockTable>& tables, int32_t computed, int32_t end,
                    int32_t in_flight) {
  tables.resize(groups());
  bool enough = true;
  for (size_t g = 0; g < groups(); ++g) {
    managers_[g].release_front(tables[g], first_seen(g, computed - in_flight));
    const auto length = static_cast<int32_t>(tables[g].blocks.size());
    enough = enough && table_length(g, computed, end) - length <= free(g);
  }
  if (!enough) return false;
  for (size_t g = 0; g < groups(); ++g) {
    managers_[g].grow(tables[g], table_length(g, computed, end));
  }
  return true;
}

void KvBlocks::release(std::vector<BlockTable>& tables) {
  for (size_t g = 0; g < tables.size(); ++g) managers_[g].release(tables[g]);
  std::erase_if(copies_, [&](const Copy& copy) {
    BlockManager& manager = managers_[copy.group];
    if (manager.held(copy.to)) return false;
    manager.drop(copy.from);
    return true;
  });
}

void KvBlocks::trim(std::vector<BlockTable>& tables, int32_t tokens) {
  for (size_t g = 0; g < tables.size(); ++g) {
    managers_[g].release_back(tables[g], managers_[g].blocks_for(tokens));
  }
}

int32_t KvBlocks::held_tokens(const std::vector<BlockTable>& tables) const {
  const auto shorter = [](const BlockTable& a, const BlockTable& b) {
    return a.blocks.size() < b.blocks.size();
  };
  const auto shortest = std::min_element(tables.begin(), tables.end(), shorter);
  return static_cast<int32_t>(shortest->blocks.size()) * shape_.block_tokens;
}

void KvBlocks::make_copies(
    const std::function<void(size_t group, int32_t from, int32_t to)>& copy) {
  while (!copies_.empty()) {
    const Copy next = copies_.back();
    copy(next.group, next.from, next.to);
    managers_[next.group].drop(next.from);
    copies_.pop_back();
  }
}

void KvBlocks::remember(Sequence& sequence, int32_t before) {
  const int32_t whole = sequence.computed / shape_.block_tokens;
  extend_chain(sequence, whole);
  for (int32_t i = before / shape_.block_tokens; i < whole; ++i) {
    const BlockContent what = content(sequence, i, shape_.block_tokens);
    for (size_t g = 0; g < groups(); ++g) {
      const int32_t block = sequence.kv[g].blocks[static_cast<size_t>(i)];
      if (cache_.add(sequence.chain[static_cast<size_t>(i)], what, g, block)) {
        managers_[g].keep(block);
      }
    }
  }
}

void KvBlocks::forget(const std::vector<BlockTable>& tables) {
  for (size_t g = 0; g < tables.size(); ++g) {
    const BlockTable& table = tables[g];
    for (auto i = static_cast<size_t>(table.gone); i < table.blocks.size(); ++i) {
      cache_.remove(g, table.blocks[i]);
      managers_[g].forget(table.blocks[i]);
    }
  }
}

void KvBlocks::forget_all() {
  for (size_t g = 0; g < groups(); ++g) {
    for (int32_t block = 0; block < managers_[g].total(); ++block) {
      cache_.remove(g, block);
      managers_[g].forget(block);
    }
  }
  query_tokens_ = hit_tokens_ = 0;
}

bool KvBlocks::can_grow(size_t group, const BlockTable& table, int32_t limit) const {
  const BlockManager& manager = managers_[group];
  if (manager.blocks_for(limit) <= static_cast<int32_t>(table.blocks.size())) return false;
  const int window = shape_.groups[group].window;
  return window == 0 || table.held() < blocks_touched(window, shape_.block_tokens);
}

int32_t KvBlocks::held_only_by(size_t group, std::span<Sequence* const> sequences) {
  const BlockManager& manager = managers_[group];
  times_named_.assign(static_cast<size_t>(manager.total()), 0);
  int32_t count = 0;
  for (const Sequence* sequence : sequences) {
    const BlockTable& table = sequence->kv[group];
    for (auto i = static_cast<size_t>(table.gone); i < table.blocks.size(); ++i) {
      const int32_t block = table.blocks[i];
      count += ++times_named_[static_cast<size_t>(block)] == manager.holders(block);
    }
  }
  return count;
}

BlockContent KvBlocks::content(const Sequence& sequence, int32_t block, int32_t tokens) const {
  const auto i = static_cast<size_t>(block);
  const int32_t first = block * shape_.block_tokens;
  return {block == 0 ? Hash128{} : sequence.chain[i - 1], shape_.rope.of_block(sequence, first),
          std::span<const int32_t>(sequence.tokens)
              .subspan(static_cast<size_t>(first), static_cast<size_t>(tokens))};
}

void KvBlocks::extend_chain(Sequence& sequence, int32_t blocks) const {
  sequence.chain.reserve(static_cast<size_t>(sequence.limit() / shape_.block_tokens));
  for (auto i = static_cast<int32_t>(sequence.chain.size()); i < blocks; ++i) {
    sequence.chain.push_back(cache_.hash(content(sequence, i, shape_.block_tokens)));
  }
}

// The first block that rows from `computed` on can see.
int32_t KvBlocks::first_seen(size_t group, int32_t computed) const {
  const int window = shape_.groups[group].window;
  return window == 0 ? 0 : std::max(0, computed - window + 1) / shape_.block_tokens;
}

// Of a sequence that is to be computed up to `end`.
int32_t KvBlocks::table_length(size_t group, int32_t computed, int32_t end) const {
  const int32_t all = managers_[group].blocks_for(end);
  if (shape_.groups[group].window == 0) return all;
  return std::min(all, first_seen(group, computed) + shape_.needed(group, INT32_MAX));
}

int32_t KvBlocks::used() const {
  int32_t sum = 0;
  for (const BlockManager& manager : managers_) sum += manager.used();
  return sum;
}

int32_t KvBlocks::total() const {
  int32_t sum = 0;
  for (const BlockManager& manager : managers_) sum += manager.total();
  return sum;
}

float KvBlocks::usage() const {
  float most = 0;
  for (const BlockManager& manager : managers_) {
    most = std::max(most, static_cast<float>(manager.used()) / static_cast<float>(manager.total()));
  }
  return most;
}

}  // namespace llorch
