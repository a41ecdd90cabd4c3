// The blocks of all kv groups, and what a sequence holds of them: in a group with a window, no
// block that none of its rows to come can see. A block whose k and v are computed is found again by
// its content (PrefixCache), held or not, until it is taken for something else. Numbers only; knows
// no policy and no memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/block_manager.h"
#include "engine/prefix_cache.h"
#include "engine/rope_length.h"
#include "engine/sequence.h"
#include "ops/backend.h"

namespace llorch {

struct KvShape {
  std::vector<KvGroup> groups;
  int32_t block_tokens = 0;
  int32_t step_tokens = 0;  // the most rows that a sequence has in a step
  RopeLengths rope = {};

  // Blocks of a group that a sequence of `tokens` tokens holds at most, at any time.
  int32_t needed(size_t group, int32_t tokens) const;
};

class KvBlocks {
 public:
  // `blocks` of each group.
  KvBlocks(KvShape shape, std::span<const int32_t> blocks);
  KvBlocks(const KvBlocks&) = delete;
  KvBlocks& operator=(const KvBlocks&) = delete;

  // Whether a sequence of so many tokens fits into all blocks together.
  bool fits(int32_t tokens) const;
  // Tokens of its beginning that begin() would find now.
  int32_t findable(Sequence& sequence);
  // Whether `other` is about to compute the block that follows what of `sequence` is found now.
  bool awaits(Sequence& sequence, const Sequence& other);
  // Whether begin() would succeed.
  bool has_room(Sequence& sequence, std::span<const int32_t> spare);
  // Gives a sequence that holds nothing what it needs to compute all it knows: the blocks of its
  // longest beginning that some hold the content of, shared, and new ones; `computed` becomes that
  // beginning's length, less than what is known. It may end inside a block: a new one then gets
  // that block's copy (make_copies()). False, taking nothing, if not for all that it can hold at
  // once, its next token's included, and `spare` blocks beside ([G]), enough are free.
  bool begin(Sequence& sequence, std::span<const int32_t> spare);
  // Gives up what no row from `computed` on can see, then takes blocks, so that the rows up to
  // `end` can be computed in any steps with a hold() to the same end before each. False, taking
  // nothing, if too few are free: of a sequence whose blocks nobody shares, at the first call only.
  // A step in flight computes the last `in_flight` of the computed tokens: what these see is kept,
  // for they may have to be computed again, and are remember()ed later.
  bool hold(std::vector<BlockTable>& tables, int32_t computed, int32_t end, int32_t in_flight = 0);
  void release(std::vector<BlockTable>& tables);
  // Gives up the blocks at the end that are not needed for `tokens` tokens.
  void trim(std::vector<BlockTable>& tables, int32_t tokens);
  // Tokens for which there are blocks.
  int32_t held_tokens(const std::vector<BlockTable>& tables) const;

  // What begin() left to be copied before the next step; `copy` may throw.
  void make_copies(const std::function<void(size_t group, int32_t from, int32_t to)>& copy);
  // Its tokens from `before` to `computed` have been computed: others can find them from now on.
  void remember(Sequence& sequence, int32_t before);
  // Nobody finds what lies in these blocks any more.
  void forget(const std::vector<BlockTable>& tables);
  // Nobody finds what lies in any block; the counts below begin anew.
  void forget_all();

  // Blocks that must be free for a newcomer's tokens and its next, if none is found.
  int32_t needed(size_t group, const Sequence& sequence) const {
    return shape_.needed(group, std::min(sequence.known() + 1, sequence.limit()));
  }
  // Blocks that would be free if all these sequences went.
  int32_t held_only_by(size_t group, std::span<Sequence* const> sequences);
  // Whether decoding up to `limit` tokens may take one more block than `table` holds now.
  bool can_grow(size_t group, const BlockTable& table, int32_t limit) const;

  size_t groups() const { return managers_.size(); }
  int32_t free(size_t group) const { return managers_[group].free(); }
  int32_t used() const;   // of all groups, by a sequence
  int32_t total() const;  // of all groups
  float usage() const;    // of the fullest group, 0 to 1

  // Tokens of the sequences that have begun, and what of them was found.
  uint64_t query_tokens() const { return query_tokens_; }
  uint64_t hit_tokens() const { return hit_tokens_; }

 private:
  // What a sequence can share: whole blocks, those of `found_`, then the start of one more.
  struct Hit {
    int32_t blocks = 0;
    PrefixCache::Start start;
  };
  struct Copy {
    size_t group;
    int32_t from, to;  // `from` is held until it is made
  };

  // Nothing if there is no room.
  std::optional<Hit> look_up_if_room(Sequence& sequence, std::span<const int32_t> spare);
  Hit look_up(Sequence& sequence);
  PrefixCache::Start find_start(Sequence& sequence, int32_t blocks) const;
  bool fits(const Sequence& sequence, const Hit& hit, std::span<const int32_t> spare) const;
  void share(Sequence& sequence, const Hit& hit);
  BlockContent content(const Sequence& sequence, int32_t block, int32_t tokens) const;
  void extend_chain(Sequence& sequence, int32_t blocks) const;
  int32_t first_seen(size_t group, int32_t computed) const;
  int32_t table_length(size_t group, int32_t computed, int32_t end) const;

  const KvShape shape_;
  PrefixCache cache_;
  std::vector<BlockManager> managers_;
  std::vector<Copy> copies_;
  // look_up()'s: an entry or -1 of each block, and how many of a group are there in a row.
  std::vector<int32_t> found_, in_a_row_;
  std::vector<int32_t> times_named_;  // held_only_by()'s, of each block
  uint64_t query_tokens_ = 0, hit_tokens_ = 0;
};

}  // namespace llorch
