#include "engine/block_manager.h"

#include <numeric>

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

bool BlockManager::grow(std::vector<int32_t>& blocks, int32_t tokens) {
  const int32_t more = blocks_for(tokens) - static_cast<int32_t>(blocks.size());
  if (more > free()) return false;
  for (int32_t i = 0; i < more; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    holders_[static_cast<size_t>(block)] = 1;
    blocks.push_back(block);
  }
  return true;
}

void BlockManager::share(std::span<const int32_t> shared, std::vector<int32_t>& blocks) {
  for (const int32_t block : shared) {
    CHECK(holders_.at(static_cast<size_t>(block)) > 0);
    ++holders_[static_cast<size_t>(block)];
    blocks.push_back(block);
  }
}

void BlockManager::release(std::vector<int32_t>& blocks) {
  // From the back, so that a later owner gets them in the same order.
  for (; !blocks.empty(); blocks.pop_back()) {
    int32_t& holders = holders_.at(static_cast<size_t>(blocks.back()));
    CHECK(holders > 0);
    if (--holders == 0) free_.push_back(blocks.back());
  }
}

}  // namespace llorch
