#include "engine/kv_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
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

TEST(KvBlocks, TrimToWhatIsNeededForSoManyTokens) {
  const KvShape s = shape({{.layers = 1}, {.layers = 1, .window = 7}}, 4);
  KvBlocks blocks(s, std::vector<int32_t>{20, 20});
  std::vector<BlockTable> tables;
  for (const int32_t computed : {0, 20}) ASSERT_TRUE(blocks.hold(tables, computed, 21));
  EXPECT_EQ(blocks.held_tokens(tables), 24);
  const int32_t used = blocks.used();
  for (int32_t end = 22; end < 31; ++end) {
    ASSERT_TRUE(blocks.hold(tables, 20, end));
    EXPECT_EQ(blocks.held_tokens(tables), (end + 3) / 4 * 4);
    blocks.trim(tables, 21);
    EXPECT_EQ(blocks.held_tokens(tables), 24);
    EXPECT_EQ(blocks.used(), used);
  }
  blocks.trim(tables, 21);
  expect_visible(tables, s, 20, 21);
  blocks.release(tables);
  EXPECT_EQ(blocks.used(), 0);
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

// A pool and sequences that begin in it, are computed as a whole and leave.
struct Pool {
  Pool(std::vector<KvGroup> groups, const std::vector<int32_t>& counts, RopeLengths rope = {})
      : blocks({std::move(groups), kPerBlock, kStep, rope}, counts), spare(blocks.groups()) {}

  static constexpr int32_t kPerBlock = 4;

  std::unique_ptr<Sequence> sequence(std::vector<int32_t> prompt) const {
    Request request;
    request.prompt = std::move(prompt);
    request.max_tokens = 50;
    return std::make_unique<Sequence>(std::move(request));
  }
  static std::vector<int32_t> counting(int32_t count, int32_t from = 100) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    std::iota(tokens.begin(), tokens.end(), from);
    return tokens;
  }
  // What is copied for it, as group, from, to.
  std::vector<std::vector<int32_t>> begin(Sequence& s) {
    EXPECT_TRUE(blocks.begin(s, spare));
    std::vector<std::vector<int32_t>> copies;
    blocks.make_copies([&](size_t group, int32_t from, int32_t to) {
      copies.push_back({static_cast<int32_t>(group), from, to});
    });
    return copies;
  }
  void compute(Sequence& s, int32_t end) {
    while (s.computed < end) {
      const int32_t before = s.computed;
      ASSERT_TRUE(blocks.hold(s.kv, before, s.known()));
      s.computed = std::min(end, before + kStep);
      blocks.remember(s, before);
    }
  }
  // Begins, computes all, leaves. What it found.
  int32_t pass(std::vector<int32_t> prompt) {
    const auto s = sequence(std::move(prompt));
    begin(*s);
    const int32_t found = s->computed;
    compute(*s, s->known());
    blocks.release(s->kv);
    return found;
  }

  KvBlocks blocks;
  std::vector<int32_t> spare;
};

const std::vector<KvGroup> kFull = {{.layers = 1}};
const std::vector<KvGroup> kBoth = {{.layers = 1}, {.layers = 1, .window = 7}};

TEST(KvBlocks, ShareWhatIsComputedAndNothingElse) {
  Pool pool(kFull, {20});
  const auto one = pool.sequence(Pool::counting(18)), two = pool.sequence(Pool::counting(18));
  pool.begin(*one);
  EXPECT_EQ(one->computed, 0);
  pool.compute(*one, 10);
  EXPECT_TRUE(pool.begin(*two).empty());
  EXPECT_EQ(two->computed, 8);  // two whole blocks
  EXPECT_EQ(two->cached_tokens, 8);
  EXPECT_EQ(pool.blocks.used(), 5 + 3);
  EXPECT_EQ(two->kv[0].blocks[1], one->kv[0].blocks[1]);
  EXPECT_NE(two->kv[0].blocks[2], one->kv[0].blocks[2]);
  pool.blocks.release(one->kv);
  EXPECT_EQ(pool.blocks.used(), 5);
  pool.blocks.release(two->kv);
  EXPECT_EQ(pool.blocks.used(), 0);
  EXPECT_EQ(pool.blocks.query_tokens(), 36u);
  EXPECT_EQ(pool.blocks.hit_tokens(), 8u);
}

TEST(KvBlocks, CopyTheBlockInWhichAPromptGoesOnOtherwise) {
  Pool pool(kBoth, {20, 20});
  const auto one = pool.sequence(Pool::counting(16));
  pool.begin(*one);
  pool.compute(*one, 16);
  auto prompt = Pool::counting(14);
  prompt[10] = 1;
  const auto two = pool.sequence(prompt);
  const auto copies = pool.begin(*two);
  EXPECT_EQ(two->computed, 10);
  std::vector<std::vector<int32_t>> wanted;
  for (size_t g = 0; g < 2; ++g) {
    EXPECT_NE(two->kv[g].blocks[2], one->kv[g].blocks[2]);
    wanted.push_back({static_cast<int32_t>(g), one->kv[g].blocks[2], two->kv[g].blocks[2]});
  }
  EXPECT_TRUE(std::is_permutation(copies.begin(), copies.end(), wanted.begin(), wanted.end()));
  EXPECT_TRUE(pool.begin(*pool.sequence({7})).empty());
}

TEST(KvBlocks, HoldTheSourceOfACopyUntilItIsMade) {
  Pool pool(kFull, {5});
  pool.pass(Pool::counting(8));
  const auto two = pool.sequence(Pool::counting(8));
  ASSERT_TRUE(pool.blocks.begin(*two, pool.spare));
  EXPECT_EQ(two->computed, 7);
  EXPECT_EQ(pool.blocks.used(), 3);
  const auto three = pool.sequence(Pool::counting(12, 500));
  EXPECT_FALSE(pool.blocks.begin(*three, pool.spare));
  int32_t source = -1;
  EXPECT_THROW(pool.blocks.make_copies([](size_t, int32_t, int32_t) { throw 1; }), int);
  EXPECT_EQ(pool.blocks.used(), 3) << "it is still to be made";
  pool.blocks.make_copies([&](size_t, int32_t from, int32_t) { source = from; });
  EXPECT_EQ(pool.blocks.used(), 2);
  EXPECT_NE(source, two->kv[0].blocks[1]);
}

TEST(KvBlocks, DropACopyWhoseOwnerLeavesBeforeIt) {
  Pool pool(kBoth, {9, 9});
  pool.pass(Pool::counting(8));
  const auto two = pool.sequence(Pool::counting(8));
  ASSERT_TRUE(pool.blocks.begin(*two, pool.spare));
  EXPECT_GT(pool.blocks.used(), 0);
  pool.blocks.release(two->kv);
  EXPECT_EQ(pool.blocks.used(), 0);
  pool.blocks.make_copies([](size_t, int32_t, int32_t) { FAIL(); });
}

TEST(KvBlocks, DoWithoutACopyThatHasNoPlace) {
  Pool pool(kFull, {3});
  pool.pass(Pool::counting(8));
  EXPECT_EQ(pool.pass(Pool::counting(8)),
            4);  // its own two and the next token's: none for a source
  Pool roomy(kFull, {4});
  roomy.pass(Pool::counting(8));
  EXPECT_EQ(roomy.pass(Pool::counting(8)), 7);
}

TEST(KvBlocks, CountWhatOthersHoldAsNoNeed) {
  Pool pool(kFull, {8});
  const auto one = pool.sequence(Pool::counting(17));
  pool.begin(*one);
  pool.compute(*one, 17);
  EXPECT_EQ(pool.blocks.free(0), 3);
  // Five blocks, of which four are there; one for growth.
  const auto two = pool.sequence(Pool::counting(18));
  pool.spare = {3};
  EXPECT_FALSE(pool.blocks.has_room(*two, pool.spare));
  pool.spare = {2};
  EXPECT_TRUE(pool.blocks.has_room(*two, pool.spare));
  pool.begin(*two);
  Sequence* const all[] = {one.get(), two.get()};
  EXPECT_EQ(pool.blocks.held_only_by(0, std::span(all).first(1)), 1);
  EXPECT_EQ(pool.blocks.held_only_by(0, std::span(all).last(1)), 1);
  EXPECT_EQ(pool.blocks.held_only_by(0, all), 6);
}

TEST(KvBlocks, NeedOfAWindowOnlyWhatItShows) {
  Pool pool(kBoth, {40, 40});
  pool.pass(Pool::counting(40));
  auto prompt = Pool::counting(41);
  const auto two = pool.sequence(prompt);
  pool.begin(*two);
  EXPECT_EQ(two->computed, 40);
  // Row 40 sees 34 to 40: blocks 8 to 10.
  EXPECT_EQ(two->kv[1].gone, 8);
  EXPECT_EQ(two->kv[1].held(), 3);
  EXPECT_EQ(two->kv[0].held(), 11);
}

TEST(KvBlocks, FindLessWhereAWindowsBlocksAreTaken) {
  // Of the window's group six blocks: what lies before the last ones is taken.
  Pool pool(kBoth, {40, 6});
  pool.pass(Pool::counting(40));
  EXPECT_EQ(pool.pass(Pool::counting(20)), 0);
  EXPECT_EQ(pool.pass(Pool::counting(41)), 20);
  Pool tight(kBoth, {40, 6});
  tight.pass(Pool::counting(40));
  EXPECT_EQ(tight.pass(Pool::counting(38)), 37);
  EXPECT_EQ(tight.pass(Pool::counting(48)), 40);
}

TEST(KvBlocks, FindBehindWhatIsTakenWhereAllHaveWindows) {
  Pool pool({{.layers = 1, .window = 7}}, {6});
  pool.pass(Pool::counting(40));
  EXPECT_EQ(pool.pass(Pool::counting(42)), 40);
}

TEST(KvBlocks, TakeTheLeastRecentlyUsedFirst) {
  Pool pool(kFull, {9});
  pool.pass(Pool::counting(12, 100));
  pool.pass(Pool::counting(12, 200));
  EXPECT_EQ(pool.pass(Pool::counting(5, 100)), 4);  // one block of no content, one of the last
  pool.pass(Pool::counting(12, 300));               // takes the rest of both
  EXPECT_EQ(pool.pass(Pool::counting(5, 100)), 4);
}

TEST(KvBlocks, ForgetWhatAFailedRowLeft) {
  Pool pool(kFull, {20});
  const auto one = pool.sequence(Pool::counting(18));
  pool.begin(*one);
  pool.compute(*one, 18);
  pool.blocks.forget(one->kv);
  EXPECT_EQ(pool.pass(Pool::counting(18)), 0);
  pool.blocks.release(one->kv);
  EXPECT_EQ(pool.pass(Pool::counting(18)), 16);
  pool.blocks.forget_all();
  EXPECT_EQ(pool.pass(Pool::counting(18)), 0);
  EXPECT_EQ(pool.blocks.query_tokens(), 18u);
}

}  // namespace
}  // namespace llorch
