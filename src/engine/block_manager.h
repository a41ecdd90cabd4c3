// Who holds which kv block of a group: a free list and reference counts. Numbers only; knows no
// sequence and no memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llorch {

// A sequence's blocks in a group, in order of position.
struct BlockTable {
  std::vector<int32_t> blocks;  // physical; -1 = given up
  int32_t gone = 0;             // the first `gone` of them are given up

  int32_t held() const { return static_cast<int32_t>(blocks.size()) - gone; }
};

class BlockManager {
 public:
  BlockManager(int32_t blocks, int32_t block_tokens);

  // Blocks that hold this many tokens.
  int32_t blocks_for(int32_t tokens) const;
  // Appends free blocks to `table` until it has `count`. The caller has seen that they are free.
  void grow(BlockTable& table, int32_t count);
  // Appends `shared`, which someone holds, to `table`: each has one holder more.
  void share(std::span<const int32_t> shared, BlockTable& table);
  // Gives up the first `count` blocks of `table`; a block without a holder is free again.
  void release_front(BlockTable& table, int32_t count);
  // Gives up all of `table` and empties it.
  void release(BlockTable& table);

  int32_t total() const { return static_cast<int32_t>(holders_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return total() - free(); }

 private:
  void drop(int32_t block);

  const int32_t block_tokens_;
  std::vector<int32_t> holders_;  // [total] how many tables name the block
  std::vector<int32_t> free_;     // a stack: what was freed last is taken first
};

}  // namespace llorch
