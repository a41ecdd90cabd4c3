#include "engine/block_manager.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace llorch {
namespace {

using Blocks = std::vector<int32_t>;

TEST(BlockManager, RoundsTokensUpToBlocks) {
  const BlockManager manager(8, 16);
  const struct {
    int32_t tokens, blocks;
  } cases[] = {{0, 0}, {1, 1}, {15, 1}, {16, 1}, {17, 2}, {128, 8}, {INT32_MAX, 134217728}};
  for (const auto& c : cases) EXPECT_EQ(manager.blocks_for(c.tokens), c.blocks) << c.tokens;
}

TEST(BlockManager, GrowsOnlyByWhatIsMissing) {
  BlockManager manager(4, 16);
  Blocks blocks;
  ASSERT_TRUE(manager.grow(blocks, 16));
  EXPECT_EQ(blocks.size(), 1u);
  ASSERT_TRUE(manager.grow(blocks, 17));
  EXPECT_EQ(blocks.size(), 2u);
  ASSERT_TRUE(manager.grow(blocks, 5));
  EXPECT_EQ(blocks.size(), 2u);
  EXPECT_EQ(manager.used(), 2);
}

TEST(BlockManager, GrowsByAllOrNothing) {
  BlockManager manager(3, 16);
  Blocks one, two;
  ASSERT_TRUE(manager.grow(one, 32));
  EXPECT_FALSE(manager.grow(two, 17));
  EXPECT_TRUE(two.empty());
  EXPECT_EQ(manager.free(), 1);
  EXPECT_TRUE(manager.grow(two, 16));
  EXPECT_EQ(manager.free(), 0);
}

TEST(BlockManager, KeepsASharedBlockUntilItsLastHolderLeaves) {
  BlockManager manager(4, 16);
  Blocks owner, sharer;
  ASSERT_TRUE(manager.grow(owner, 48));
  manager.share(std::span(owner).first(2), sharer);
  ASSERT_TRUE(manager.grow(sharer, 33));
  EXPECT_EQ(manager.used(), 4);
  manager.release(owner);
  EXPECT_TRUE(owner.empty());
  EXPECT_EQ(manager.used(), 3);
  manager.release(sharer);
  EXPECT_EQ(manager.used(), 0);
}

TEST(BlockManager, NeverGivesABlockTwice) {
  std::mt19937 random(7);
  BlockManager manager(40, 4);
  std::vector<Blocks> lists(12);
  for (int i = 0; i < 20000; ++i) {
    Blocks& list = lists[random() % lists.size()];
    if (random() % 4 == 0) {
      manager.release(list);
    } else {
      manager.grow(list, static_cast<int32_t>(list.size() * 4 + random() % 20));
    }
    std::set<int32_t> held;
    size_t count = 0;
    for (const Blocks& l : lists) {
      held.insert(l.begin(), l.end());
      count += l.size();
    }
    ASSERT_EQ(held.size(), count);
    ASSERT_EQ(static_cast<size_t>(manager.used()), count);
    ASSERT_TRUE(held.empty() || (*held.begin() >= 0 && *held.rbegin() < 40));
  }
}

}  // namespace
}  // namespace llorch
