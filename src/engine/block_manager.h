// Who holds which kv block of a group: reference counts, and the blocks without a holder in the
// order in which they are taken. Numbers only; knows no sequence and no memory.
#pragma once

#include <cstdint>
#include <functional>
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
  // `lost` is told of each kept block whose content is given up for a new one.
  BlockManager(int32_t blocks, int32_t block_tokens, std::function<void(int32_t block)> lost = {});

  // Blocks that hold this many tokens.
  int32_t blocks_for(int32_t tokens) const;
  // Appends free blocks to `table` until it has `count`: first those of no content, then the least
  // recently held. The caller has seen that they are free.
  void grow(BlockTable& table, int32_t count);
  // One holder more, or less; a block without a holder is free.
  void hold(int32_t block);
  void drop(int32_t block);
  int32_t holders(int32_t block) const { return holders_[index(block)]; }
  bool held(int32_t block) const { return holders(block) > 0; }
  // Gives up the first `count` blocks of `table`.
  void release_front(BlockTable& table, int32_t count);
  // Gives up all but the first `count` blocks of `table`, which are at least those that are gone.
  void release_back(BlockTable& table, int32_t count);
  // Gives up all of `table` and empties it.
  void release(BlockTable& table);

  // Whether the content of a held block is of use when nobody holds it any more.
  void keep(int32_t block) { kept_[index(block)] = true; }
  void forget(int32_t block);

  int32_t total() const { return static_cast<int32_t>(holders_.size()); }
  int32_t free() const { return free_; }
  int32_t used() const { return total() - free(); }

 private:
  static size_t index(int32_t block) { return static_cast<size_t>(block); }
  int32_t take();
  void link(int32_t block, int32_t before);
  void unlink(int32_t block);

  const int32_t block_tokens_;
  const std::function<void(int32_t)> lost_;
  std::vector<int32_t> holders_;  // [total] how many name the block
  std::vector<bool> kept_;        // [total]
  // The free blocks as a ring through [total], which is no block: the next to be taken comes first.
  std::vector<int32_t> next_, previous_;
  int32_t free_ = 0;
};

}  // namespace llorch
