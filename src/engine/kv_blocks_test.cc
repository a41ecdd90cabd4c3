#include "engine/kv_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace llorch {
namespace {

constexpr int32_t kStep = 10;

KvShape shape(std::vector<KvGroup> groups, int32_t block_tokens) {
  return {std::move(groups), block_tokens, kStep};
}

TEST(KvBlocks, NeedsBlocksForAllTokensOrForAWindowAndAStep) {
  const KvShape s = shape({{.layers = 1}, {.layers = 1, .window = 7}}, 4);
  const struct {
    int32_t tokens, all, window;
  } cases[] = {{0, 0, 0}, {1, 1, 1}, {16, 4, 4}, {17, 5, 5}, {21, 6, 5}, {1000, 250, 5}};
  for (const auto& c : cases) {
    EXPECT_EQ(s.needed(0, c.tokens), c.all) << c.tokens;
    EXPECT_EQ(s.needed(1, c.tokens), c.window) << c.tokens;  // 16 tokens in a row touch 5 blocks
  }
  EXPECT_EQ(shape({{.layers = 1, .window = INT32_MAX}}, 1).needed(0, INT32_MAX), INT32_MAX);
}

// Every token that the rows computed .. end - 1 see must have a block.
void expect_visible(const std::vector<BlockTable>& tables, const KvShape& s, int32_t computed,
                    int32_t end) {
  for (size_t g = 0; g < s.groups.size(); ++g) {
    const int32_t window = s.groups[g].window;
    const int32_t first = window == 0 ? 0 : std::max(0, computed - window + 1);
    for (int32_t i = first / s.block_tokens; i <= (end - 1) / s.block_tokens; ++i) {
      ASSERT_GE(tables[g].blocks.at(static_cast<size_t>(i)), 0) << "group " << g << ", block " << i;
    }
    // And no block that they cannot see is held.
    for (int32_t i = 0; i < first / s.block_tokens; ++i) {
      ASSERT_EQ(tables[g].blocks[static_cast<size_t>(i)], -1) << "group " << g << ", block " << i;
    }
  }
}

TEST(KvBlocks, HoldWhatRowsSeeAndNoMoreThanTheyNeed) {
  std::mt19937 random(3);
  for (const int32_t block_tokens : {1, 3, 4, 16}) {
    for (const int32_t window : {1, 2, 5, 16, 17, 40}) {
      const KvShape s = shape({{.layers = 1, .window = window}, {.layers = 1}}, block_tokens);
      constexpr int32_t kPrompt = 90, kEnd = 150;
      const std::vector<int32_t> least = {s.needed(0, kEnd), s.needed(1, kEnd)};
      KvBlocks blocks(s, least);
      EXPECT_TRUE(blocks.fits(kEnd));
      EXPECT_EQ(blocks.fits(kEnd + block_tokens), false);
      std::vector<BlockTable> tables;
      int32_t computed = 0;
      // The prompt in any chunks, then token by token.
      while (computed < kEnd) {
        const int32_t end = std::max(kPrompt, computed + 1);
        const int32_t rows =
            std::min(end - computed, static_cast<int32_t>(random() % uint32_t{kStep}) + 1);
        ASSERT_TRUE(blocks.hold(tables, computed, end)) << computed;
        expect_visible(tables, s, computed, computed + rows);
        ASSERT_LE(tables[0].held(), least[0]);
        if (computed >= kPrompt + window) {
          ASSERT_LE(tables[0].held(), (window + block_tokens - 2) / block_tokens + 1);
        }
        computed += rows;
      }
      blocks.release(tables);
      EXPECT_EQ(blocks.used(), 0);
    }
  }
}

TEST(KvBlocks, TakeNothingWhenOneGroupIsShort) {
  const std::vector<int32_t> counts = {4, 2};
  KvBlocks blocks(shape({{.layers = 1}, {.layers = 1, .window = 100}}, 4), counts);
  std::vector<BlockTable> one, two;
  ASSERT_TRUE(blocks.hold(one, 0, 5));
  EXPECT_FALSE(blocks.hold(two, 0, 5));
  EXPECT_EQ(blocks.free(0), 2);
  EXPECT_EQ(blocks.free(1), 0);
  EXPECT_EQ(blocks.usage(), 1);
  EXPECT_EQ(blocks.used(), 4);
  EXPECT_EQ(blocks.total(), 6);
  EXPECT_FALSE(blocks.fits(9));
}

TEST(KvBlocks, SayWhetherDecodingMayTakeOneMore) {
  const std::vector<int32_t> counts = {50};
  KvBlocks blocks(shape({{.layers = 1, .window = 5}}, 4), counts);
  std::vector<BlockTable> tables;
  ASSERT_TRUE(blocks.hold(tables, 0, 4));
  EXPECT_TRUE(blocks.can_grow(0, tables[0], 100));
  EXPECT_FALSE(blocks.can_grow(0, tables[0], 4));
  ASSERT_TRUE(blocks.hold(tables, 4, 5));
  EXPECT_FALSE(blocks.can_grow(0, tables[0], 100));  // five tokens touch two blocks at most
}

}  // namespace
}  // namespace llorch
