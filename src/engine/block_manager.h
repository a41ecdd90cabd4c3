// Who holds which kv block: a free list and reference counts. Numbers only; knows no sequence and
// no memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llorch {

class BlockManager {
 public:
  BlockManager(int32_t blocks, int32_t block_tokens);

  // Blocks that hold this many tokens.
  int32_t blocks_for(int32_t tokens) const;
  // Appends free blocks to `blocks` until it holds `tokens` tokens. Returns false, changing
  // nothing, if fewer than needed are free.
  bool grow(std::vector<int32_t>& blocks, int32_t tokens);
  // Appends `shared`, which someone holds, to `blocks`: each has one holder more.
  void share(std::span<const int32_t> shared, std::vector<int32_t>& blocks);
  // Gives up all of `blocks` and empties it; a block without a holder is free again.
  void release(std::vector<int32_t>& blocks);

  int32_t total() const { return static_cast<int32_t>(holders_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return total() - free(); }

 private:
  const int32_t block_tokens_;
  std::vector<int32_t> holders_;  // [total] how many lists name the block
  std::vector<int32_t> free_;     // a stack: what was freed last is taken first
};

}  // namespace llorch
