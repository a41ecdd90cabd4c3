// Which contents lie in the kv blocks, found by hash. A content is a block's tokens together with
// all that comes before them in the sequence: two blocks of the same content hold the same k and v,
// bit for bit. Numbers only; knows neither who holds a block nor which are given up.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/sip_hash.h"

namespace llorch {

struct BlockContent {
  Hash128 before{};         // the hash of the block before it; zeros for the first
  int32_t rope_length = 0;  // RopeLengths::of_block()
  std::span<const int32_t> tokens;
};

// Entries in buckets by a hash, each a list that is linked through the entries themselves.
class HashBuckets {
 public:
  explicit HashBuckets(size_t entries);

  // The entries of a bucket, the newest first; -1 ends it. They may be of other hashes too.
  int32_t first(const Hash128& hash) const { return heads_[bucket(hash)]; }
  int32_t next(int32_t entry) const { return next_[static_cast<size_t>(entry)]; }
  void add(const Hash128& hash, int32_t entry);
  void remove(const Hash128& hash, int32_t entry);

 private:
  size_t bucket(const Hash128& hash) const { return hash[0] & (heads_.size() - 1); }

  std::vector<int32_t> heads_, next_, previous_;
};

class PrefixCache {
 public:
  // `blocks` of each kv group. No memory is taken later.
  PrefixCache(std::span<const int32_t> blocks, int32_t block_tokens);

  // Of a whole block's content. The key is random: nobody outside can make two contents collide.
  Hash128 hash(const BlockContent& content) const;

  // The entry of a content, whose hash is given; -1: none.
  int32_t find(const Hash128& hash, const BlockContent& content) const;
  // The block of `group` that holds an entry's content; -1: none does.
  int32_t block(int32_t entry, size_t group) const { return blocks_[place(entry, group)]; }
  bool in_every_group(int32_t entry) const;

  struct Start {
    int32_t entry = -1, tokens = 0;
  };
  // An entry that is in every group and begins with as many of the content's tokens (at least one;
  // there may be any number of them) as another, of the newest that follow the same block.
  Start find_start(const BlockContent& content) const;

  // `block` of `group` now holds this content. False if another one does already.
  bool add(const Hash128& hash, const BlockContent& content, size_t group, int32_t block);
  // `block` of `group` holds no content any more.
  void remove(size_t group, int32_t block);

 private:
  struct Entry {
    Hash128 hash{}, before{};
    int32_t rope_length = 0;
    int32_t groups = 0;  // in how many it has a block; 0: the entry is free
  };

  size_t place(int32_t entry, size_t group) const {
    return static_cast<size_t>(entry) * entry_of_.size() + group;
  }
  std::span<const int32_t> tokens(int32_t entry) const {
    return std::span(tokens_).subspan(static_cast<size_t>(entry) * block_tokens_, block_tokens_);
  }
  int32_t new_entry(const Hash128& hash, const BlockContent& content);

  const size_t block_tokens_;
  const SipKey key_;
  std::vector<std::vector<int32_t>> entry_of_;  // [G][blocks]; -1: no content
  std::vector<Entry> entries_;                  // as many as there are blocks
  std::vector<int32_t> free_;                   // entries
  std::vector<int32_t> tokens_;                 // [entries, P]
  std::vector<int32_t> blocks_;                 // [entries, G]
  HashBuckets by_hash_, by_before_;
};

}  // namespace llorch
