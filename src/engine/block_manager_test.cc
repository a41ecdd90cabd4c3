#include "engine/block_manager.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace llorch {
namespace {

TEST(BlockManager, RoundsTokensUpToBlocks) {
  const BlockManager manager(8, 16);
  const struct {
    int32_t tokens, blocks;
  } cases[] = {{0, 0}, {1, 1}, {15, 1}, {16, 1}, {17, 2}, {128, 8}, {INT32_MAX, 134217728}};
  for (const auto& c : cases) EXPECT_EQ(manager.blocks_for(c.tokens), c.blocks) << c.tokens;
}

TEST(BlockManager, GrowsOnlyByWhatIsMissing) {
  BlockManager manager(4, 16);
  BlockTable table;
  manager.grow(table, 1);
  EXPECT_EQ(table.held(), 1);
  manager.grow(table, 2);
  EXPECT_EQ(table.held(), 2);
  manager.grow(table, 1);
  EXPECT_EQ(table.held(), 2);
  EXPECT_EQ(manager.used(), 2);
}

TEST(BlockManager, GivesUpTheFrontAndKeepsPlaces) {
  BlockManager manager(4, 16);
  BlockTable table;
  manager.grow(table, 3);
  const int32_t last = table.blocks[2];
  manager.release_front(table, 2);
  manager.release_front(table, 1);
  EXPECT_EQ(table.blocks, (std::vector<int32_t>{-1, -1, last}));
  EXPECT_EQ(table.held(), 1);
  EXPECT_EQ(manager.free(), 3);
  manager.grow(table, 5);
  EXPECT_EQ(table.blocks.size(), 5u);
  EXPECT_EQ(manager.free(), 1);
  manager.release_front(table, 99);
  EXPECT_EQ(manager.free(), 4);
  EXPECT_EQ(table.held(), 0);
  manager.release(table);
  EXPECT_TRUE(table.blocks.empty());
  manager.grow(table, 4);
  EXPECT_EQ(table.held(), 4);
}

TEST(BlockManager, KeepsASharedBlockUntilItsLastHolderLeaves) {
  BlockManager manager(4, 16);
  BlockTable owner, sharer;
  manager.grow(owner, 3);
  for (size_t i = 0; i < 2; ++i) {
    manager.hold(owner.blocks[i]);
    sharer.blocks.push_back(owner.blocks[i]);
  }
  manager.grow(sharer, 3);
  EXPECT_EQ(manager.used(), 4);
  manager.release_front(sharer, 1);
  EXPECT_EQ(manager.used(), 4);
  manager.release(owner);
  EXPECT_TRUE(owner.blocks.empty());
  EXPECT_EQ(manager.used(), 2);
  manager.release(sharer);
  EXPECT_EQ(manager.used(), 0);
}

// Blocks of the order in which a table gets them.
std::vector<int32_t> taken(BlockManager& manager, int32_t count) {
  BlockTable table;
  manager.grow(table, count);
  return table.blocks;
}

TEST(BlockManager, TakesBlocksOfNoContentFirstThenTheLeastRecentlyHeld) {
  std::vector<int32_t> lost;
  BlockManager manager(6, 16, [&](int32_t block) { lost.push_back(block); });
  BlockTable one, two, three;
  manager.grow(one, 2);
  manager.grow(two, 2);
  manager.grow(three, 1);
  const std::vector<int32_t> a = one.blocks, b = two.blocks, c = three.blocks;
  for (const auto& blocks : {a, b}) {
    for (const int32_t block : blocks) manager.keep(block);
  }
  manager.release(one);
  manager.release(three);
  manager.release(two);
  EXPECT_EQ(manager.free(), 6);
  manager.hold(a[0]);  // somebody found it: it is the most recently held now
  manager.drop(a[0]);
  EXPECT_EQ(taken(manager, 2), (std::vector<int32_t>{c[0], 5}));
  EXPECT_EQ(lost, std::vector<int32_t>{});
  // Of a sequence's blocks the last is taken first.
  EXPECT_EQ(taken(manager, 4), (std::vector<int32_t>{a[1], b[1], b[0], a[0]}));
  EXPECT_EQ(lost, (std::vector<int32_t>{a[1], b[1], b[0], a[0]}));
}

TEST(BlockManager, ForgetsAContentAtOnce) {
  std::vector<int32_t> lost;
  BlockManager manager(3, 16, [&](int32_t block) { lost.push_back(block); });
  const std::vector<int32_t> blocks = taken(manager, 3);
  for (const int32_t block : blocks) manager.keep(block);
  manager.drop(blocks[0]);
  manager.drop(blocks[1]);
  manager.forget(blocks[1]);  // free: it is taken first now
  manager.forget(blocks[2]);  // held: it will be
  manager.drop(blocks[2]);
  EXPECT_EQ(taken(manager, 3), (std::vector<int32_t>{blocks[2], blocks[1], blocks[0]}));
  EXPECT_EQ(lost, (std::vector<int32_t>{blocks[0]}));
}

TEST(BlockManager, KeepsAFoundBlockFromBeingTaken) {
  BlockManager manager(2, 16, [](int32_t) {});
  const std::vector<int32_t> blocks = taken(manager, 2);
  for (const int32_t block : blocks) manager.keep(block);
  for (const int32_t block : blocks) manager.drop(block);
  manager.hold(blocks[0]);
  EXPECT_EQ(manager.free(), 1);
  EXPECT_EQ(taken(manager, 1), std::vector<int32_t>{blocks[1]});
}

TEST(BlockManager, NeverGivesABlockTwice) {
  std::mt19937 random(7);
  BlockManager manager(40, 4);
  std::vector<BlockTable> tables(12);
  for (int i = 0; i < 20000; ++i) {
    BlockTable& table = tables[random() % tables.size()];
    const auto some = static_cast<int32_t>(random() % 5);
    if (random() % 4 == 0) {
      manager.release(table);
    } else if (random() % 4 == 0) {
      manager.release_front(table, some);
    } else if (some <= manager.free()) {
      manager.grow(table, static_cast<int32_t>(table.blocks.size()) + some);
    }
    std::set<int32_t> held;
    int32_t count = 0;
    for (const BlockTable& t : tables) {
      held.insert(t.blocks.begin() + t.gone, t.blocks.end());
      count += t.held();
    }
    ASSERT_EQ(held.size(), static_cast<size_t>(count));
    ASSERT_EQ(manager.used(), count);
    ASSERT_TRUE(held.empty() || (*held.begin() >= 0 && *held.rbegin() < 40));
  }
}

}  // namespace
}  // namespace llorch
