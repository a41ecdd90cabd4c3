#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>
#include <vector>

namespace llorch {
namespace {

constexpr int32_t kPerBlock = 4;
using Ints = std::vector<int32_t>;

const Hash128 kRoot{};

struct Cache : PrefixCache {
  explicit Cache(const Ints& blocks = {8}) : PrefixCache(blocks, kPerBlock) {}

  Hash128 put(const BlockContent& content, int32_t block, size_t group = 0) {
    const Hash128 h = hash(content);
    EXPECT_TRUE(add(h, content, group, block));
    return h;
  }
  // The block of group 0, or -1.
  int32_t found(const BlockContent& content) const {
    const int32_t entry = find(hash(content), content);
    return entry < 0 ? -1 : block(entry, 0);
  }
};

TEST(PrefixCache, FindsABlockByItsTokensAndAllBeforeThem) {
  Cache cache;
  const Ints one{1, 2, 3, 4}, two{5, 6, 7, 8}, other{5, 6, 7, 9};
  const Hash128 first = cache.put({kRoot, 0, one}, 3);
  cache.put({first, 0, two}, 5);
  EXPECT_EQ(cache.found({kRoot, 0, one}), 3);
  EXPECT_EQ(cache.found({first, 0, two}), 5);
  EXPECT_EQ(cache.found({kRoot, 0, two}), -1);
  EXPECT_EQ(cache.found({first, 0, one}), -1);
  EXPECT_EQ(cache.found({first, 0, other}), -1);
  EXPECT_EQ(cache.found({kRoot, 1, one}), -1) << "turned by other angles";
}

TEST(PrefixCache, ComparesTheTokensThemselves) {
  Cache cache;
  const Ints one{1, 2, 3, 4}, two{5, 6, 7, 8};
  const Hash128 hash = cache.put({kRoot, 0, one}, 3);
  EXPECT_EQ(cache.find(hash, {kRoot, 0, two}), -1);
  EXPECT_EQ(cache.find(hash, {kRoot, 1, one}), -1);
  EXPECT_EQ(cache.find(hash, {hash, 0, one}), -1);
}

TEST(PrefixCache, HashesByAKeyOfItsOwn) {
  const Ints one{1, 2, 3, 4};
  EXPECT_NE(Cache().hash({kRoot, 0, one}), Cache().hash({kRoot, 0, one}));
}

TEST(PrefixCache, KeepsTheFirstBlockOfAContent) {
  Cache cache;
  const Ints one{1, 2, 3, 4};
  const Hash128 hash = cache.put({kRoot, 0, one}, 3);
  EXPECT_FALSE(cache.add(hash, {kRoot, 0, one}, 0, 4));
  EXPECT_EQ(cache.found({kRoot, 0, one}), 3);
  cache.remove(0, 4);  // nothing lay there
  EXPECT_EQ(cache.found({kRoot, 0, one}), 3);
  cache.remove(0, 3);
  EXPECT_EQ(cache.found({kRoot, 0, one}), -1);
  cache.put({kRoot, 0, one}, 4);
  EXPECT_EQ(cache.found({kRoot, 0, one}), 4);
}

TEST(PrefixCache, KnowsEveryGroupsOwnBlock) {
  Cache cache({4, 4});
  const Ints one{1, 2, 3, 4};
  const BlockContent content{kRoot, 0, one};
  const Hash128 hash = cache.put(content, 3, 0);
  const int32_t entry = cache.find(hash, content);
  EXPECT_EQ(cache.block(entry, 1), -1);
  EXPECT_FALSE(cache.in_every_group(entry));
  cache.put(content, 0, 1);
  EXPECT_EQ(cache.block(entry, 1), 0);
  EXPECT_TRUE(cache.in_every_group(entry));
  cache.remove(0, 3);
  EXPECT_EQ(cache.find(hash, content), entry);
  EXPECT_EQ(cache.block(entry, 0), -1);
  cache.remove(1, 0);
  EXPECT_EQ(cache.find(hash, content), -1);
}

TEST(PrefixCache, FindsTheLongestStart) {
  Cache cache;
  const Ints one{1, 2, 3, 4}, two{1, 2, 7, 8}, three{1, 9, 9, 9}, nothing{2, 2, 3, 4};
  const Hash128 first = cache.put({kRoot, 0, one}, 0);
  cache.put({kRoot, 0, two}, 1);
  cache.put({kRoot, 0, three}, 2);
  cache.put({first, 0, nothing}, 3);
  const struct {
    Ints tokens;
    int32_t block, same;
  } cases[] = {{{1, 2, 3}, 0, 3},    {{1, 2, 7}, 1, 3},  {{1, 9}, 2, 2}, {{1, 2, 3, 5}, 0, 3},
               {{1, 9, 9, 9}, 2, 4}, {{2, 2, 3}, -1, 0}, {{}, -1, 0},    {{5, 2, 3, 4}, -1, 0}};
  for (const auto& c : cases) {
    const PrefixCache::Start start = cache.find_start({kRoot, 0, c.tokens});
    EXPECT_EQ(start.tokens, c.same);
    EXPECT_EQ(start.entry < 0 ? -1 : cache.block(start.entry, 0), c.block);
  }
  EXPECT_EQ(cache.find_start({kRoot, 7, one}).tokens, 0) << "turned by other angles";
  EXPECT_EQ(cache.find_start({first, 0, nothing}).tokens, 4);
}

TEST(PrefixCache, StartsOnlyWithWhatIsInEveryGroup) {
  Cache cache({4, 4});
  const Ints one{1, 2, 3, 4};
  cache.put({kRoot, 0, one}, 1, 1);
  EXPECT_EQ(cache.find_start({kRoot, 0, one}).tokens, 0);
  cache.put({kRoot, 0, one}, 1, 0);
  EXPECT_EQ(cache.find_start({kRoot, 0, one}).tokens, 4);
}

// Against a map of contents, with as many entries as there are blocks.
TEST(PrefixCache, StaysTrueUnderRandomUse) {
  std::mt19937 random(5);
  constexpr int32_t kBlocks = 20;
  Cache cache({kBlocks});
  std::map<Ints, int32_t> block_of;       // of a content that is told by its block's tokens
  std::vector<Ints> content_of(kBlocks);  // empty: none
  for (int i = 0; i < 50000; ++i) {
    const auto block = static_cast<int32_t>(random() % kBlocks);
    Ints& content = content_of[static_cast<size_t>(block)];
    if (!content.empty()) {
      cache.remove(0, block);
      block_of.erase(content);
      content.clear();
      continue;
    }
    Ints tokens;
    for (int32_t t = 0; t < kPerBlock; ++t) tokens.push_back(static_cast<int32_t>(random() % 3));
    const BlockContent what{kRoot, 0, tokens};
    const auto known = block_of.find(tokens);
    ASSERT_EQ(cache.found(what), known == block_of.end() ? -1 : known->second);
    ASSERT_EQ(cache.add(cache.hash(what), what, 0, block), known == block_of.end());
    if (known != block_of.end()) continue;
    block_of[tokens] = block;
    content = tokens;
  }
}

}  // namespace
}  // namespace llorch
