#include "engine/block_manager.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace llorch {

BlockManager::BlockManager(int32_t blocks, int32_t block_tokens)
    : block_tokens_(block_tokens), holders_(static_cast<size_t>(blocks)) {
  CHECK(blocks > 0 && block_tokens > 0);
  free_.resize(holders_.size());
  std::iota(free_.rbegin(), free_.rend(), 0);
}

int32_t BlockManager::blocks_for(int32_t tokens) const {
  return tokens / block_tokens_ + (tokens % block_tokens_ != 0);
}

void BlockManager::grow(BlockTable& table, int32_t count) {
  const int32_t more = count - static_cast<int32_t>(table.blocks.size());
  CHECK(more <= free());
  for (int32_t i = 0; i < more; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    holders_[static_cast<size_t>(block)] = 1;
    table.blocks.push_back(block);
  }
}

void BlockManager::share(std::span<const int32_t> shared, BlockTable& table) {
  for (const int32_t block : shared) {
    CHECK(holders_.at(static_cast<size_t>(block)) > 0);
    ++holders_[static_cast<size_t>(block)];
    table.blocks.push_back(block);
  }
}

void BlockManager::release_front(BlockTable& table, int32_t count) {
  const int32_t end = std::min(count, static_cast<int32_t>(table.blocks.size()));
  for (; table.gone < end; ++table.gone) {
    drop(std::exchange(table.blocks[static_cast<size_t>(table.gone)], -1));
  }
}

void BlockManager::release(BlockTable& table) {
  // From the back, so that a later owner gets them in the same order.
  for (; table.held() > 0; table.blocks.pop_back()) drop(table.blocks.back());
  table.blocks.clear();
  table.gone = 0;
}

void BlockManager::drop(int32_t block) {
  int32_t& holders = holders_.at(static_cast<size_t>(block));
  CHECK(holders > 0);
  if (--holders == 0) free_.push_back(block);
}

}  // namespace llorch
