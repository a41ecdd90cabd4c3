#include "engine/block_manager.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace llorch {

BlockManager::BlockManager(int32_t blocks, int32_t block_tokens, std::function<void(int32_t)> lost)
    : block_tokens_(block_tokens),
      lost_(std::move(lost)),
      holders_(index(blocks)),
      kept_(index(blocks)),
      next_(index(blocks) + 1, blocks),
      previous_(index(blocks) + 1, blocks) {
  CHECK(blocks > 0 && block_tokens > 0);
  for (int32_t block = 0; block < blocks; ++block) link(block, blocks);
}

int32_t BlockManager::blocks_for(int32_t tokens) const {
  return tokens / block_tokens_ + (tokens % block_tokens_ != 0);
}

void BlockManager::grow(BlockTable& table, int32_t count) {
  const int32_t more = count - static_cast<int32_t>(table.blocks.size());
  CHECK(more <= free());
  for (int32_t i = 0; i < more; ++i) table.blocks.push_back(take());
}

int32_t BlockManager::take() {
  const int32_t block = next_.back();
  hold(block);
  if (kept_[index(block)]) {
    kept_[index(block)] = false;
    lost_(block);
  }
  return block;
}

void BlockManager::hold(int32_t block) {
  if (holders_.at(index(block))++ == 0) unlink(block);
}

void BlockManager::drop(int32_t block) {
  int32_t& holders = holders_.at(index(block));
  CHECK(holders > 0);
  if (--holders > 0) return;
  link(block, kept_[index(block)] ? total() : next_.back());
}

void BlockManager::release_front(BlockTable& table, int32_t count) {
  const int32_t end = std::min(count, static_cast<int32_t>(table.blocks.size()));
  for (; table.gone < end; ++table.gone) {
    drop(std::exchange(table.blocks[index(table.gone)], -1));
  }
}

void BlockManager::release_back(BlockTable& table, int32_t count) {
  CHECK(count >= table.gone);
  // From the back: what follows a block is of no use without it, so it is to be taken before it.
  while (static_cast<int32_t>(table.blocks.size()) > count) {
    drop(table.blocks.back());
    table.blocks.pop_back();
  }
}

void BlockManager::release(BlockTable& table) {
  release_back(table, table.gone);
  table.blocks.clear();
  table.gone = 0;
}

void BlockManager::forget(int32_t block) {
  if (!kept_.at(index(block))) return;
  kept_[index(block)] = false;
  if (held(block)) return;
  unlink(block);
  link(block, next_.back());
}

void BlockManager::link(int32_t block, int32_t before) {
  const int32_t after = previous_[index(before)];
  next_[index(after)] = previous_[index(before)] = block;
  next_[index(block)] = before;
  previous_[index(block)] = after;
  ++free_;
}

void BlockManager::unlink(int32_t block) {
  next_[index(previous_[index(block)])] = next_[index(block)];
  previous_[index(next_[index(block)])] = previous_[index(block)];
  --free_;
}

}  // namespace llorch
