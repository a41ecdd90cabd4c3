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

// The first block that rows from `computed` on can see.
int32_t first_seen(const KvGroup& group, int32_t computed, int32_t block_tokens) {
  return group.window == 0 ? 0 : std::max(0, computed - group.window + 1) / block_tokens;
}

}  // namespace

int32_t KvShape::needed(size_t group, int32_t tokens) const {
  const int32_t all = tokens / block_tokens + (tokens % block_tokens != 0);
  const int64_t window = groups[group].window;
  if (window == 0) return all;
  return static_cast<int32_t>(
      std::min<int64_t>(all, blocks_touched(window + step_tokens - 1, block_tokens)));
}

KvBlocks::KvBlocks(KvShape shape, std::span<const int32_t> blocks) : shape_(std::move(shape)) {
  CHECK(!blocks.empty() && blocks.size() == shape_.groups.size());
  for (const int32_t count : blocks) managers_.emplace_back(count, shape_.block_tokens);
}

bool KvBlocks::fits(int32_t tokens) const {
  for (size_t g = 0; g < groups(); ++g) {
    if (needed(g, tokens) > managers_[g].total()) return false;
  }
  return true;
}

bool KvBlocks::hold(std::vector<BlockTable>& tables, int32_t computed, int32_t end) {
  tables.resize(groups());
  // A table's length, once what fell out of its window is gone.
  const auto wanted = [&](size_t g) {
    const int32_t all = managers_[g].blocks_for(end);
    const KvGroup& group = shape_.groups[g];
    if (group.window == 0) return all;
    return std::min(all, first_seen(group, computed, shape_.block_tokens) + needed(g, INT32_MAX));
  };
  bool enough = true;
  for (size_t g = 0; g < groups(); ++g) {
    managers_[g].release_front(tables[g],
                               first_seen(shape_.groups[g], computed, shape_.block_tokens));
    enough = enough && wanted(g) - static_cast<int32_t>(tables[g].blocks.size()) <= free(g);
  }
  if (!enough) return false;
  for (size_t g = 0; g < groups(); ++g) managers_[g].grow(tables[g], wanted(g));
  return true;
}

void KvBlocks::release(std::vector<BlockTable>& tables) {
  for (size_t g = 0; g < tables.size(); ++g) managers_[g].release(tables[g]);
}

bool KvBlocks::can_grow(size_t group, const BlockTable& table, int32_t limit) const {
  const BlockManager& manager = managers_[group];
  if (manager.blocks_for(limit) <= static_cast<int32_t>(table.blocks.size())) return false;
  const int window = shape_.groups[group].window;
  return window == 0 || table.held() < blocks_touched(window, shape_.block_tokens);
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
