// The blocks of all kv groups, and what a sequence holds of them: in a group with a window, no
// block that none of its rows to come can see. Numbers only; knows no policy and no memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_manager.h"
#include "ops/backend.h"

namespace llorch {

struct KvShape {
  std::vector<KvGroup> groups;
  int32_t block_tokens = 0;
  int32_t step_tokens = 0;  // the most rows that a sequence has in a step

  // Blocks of a group that a sequence of `tokens` tokens holds at most, at any time.
  int32_t needed(size_t group, int32_t tokens) const;
};

class KvBlocks {
 public:
  // `blocks` of each group.
  KvBlocks(KvShape shape, std::span<const int32_t> blocks);

  // Whether a sequence of so many tokens fits into all blocks together.
  bool fits(int32_t tokens) const;
  // Gives up what no row from `computed` on can see, then takes blocks, so that the rows up to
  // `end` can be computed in any steps with a hold() to the same end before each: those all
  // succeed. False, taking nothing, if too few are free.
  bool hold(std::vector<BlockTable>& tables, int32_t computed, int32_t end);
  void release(std::vector<BlockTable>& tables);

  // Blocks that must be free for a newcomer that is to hold `tokens` tokens.
  int32_t needed(size_t group, int32_t tokens) const { return shape_.needed(group, tokens); }
  // Whether decoding up to `limit` tokens may take one more block than `table` holds now.
  bool can_grow(size_t group, const BlockTable& table, int32_t limit) const;

  size_t groups() const { return managers_.size(); }
  int32_t free(size_t group) const { return managers_[group].free(); }
  int32_t used() const;   // of all groups
  int32_t total() const;  // of all groups
  float usage() const;    // of the fullest group, 0 to 1

 private:
  const KvShape shape_;
  std::vector<BlockManager> managers_;
};

}  // namespace llorch
