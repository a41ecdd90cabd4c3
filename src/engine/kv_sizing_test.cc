#include "engine/kv_sizing.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/error.h"

namespace llorch {
namespace {

// Blocks of 16 tokens; of the first group 3 layers, of the second 5 with a window of 100.
struct Sizing {
  KvSpec spec{.groups = {{.layers = 3}, {.layers = 5, .window = 100}},
              .kv_heads = 2,
              .head_dim = 8,
              .block_tokens = 16,
              .type = DType::kF32};
  KvShape shape{spec.groups, 16, 32};
  uint64_t full = Backend::block_bytes(spec, 0), window = Backend::block_bytes(spec, 1);

  std::vector<int32_t> sizes(uint64_t budget, uint64_t free_bytes = uint64_t{1} << 40,
                             int32_t context = 1024, int32_t max_batch = 8) const {
    return kv_pool_sizes({.spec = spec, .shape = shape, .context = context, .max_batch = max_batch},
                         budget, free_bytes);
  }
};

TEST(KvSizing, GivesAFullBatchWhatItCanUse) {
  const Sizing s;
  EXPECT_EQ(s.window, s.full / 3 * 5);
  // 131 tokens in a row touch at most 10 blocks.
  EXPECT_EQ(s.sizes(uint64_t{1} << 30), (std::vector<int32_t>{8 * 64, 8 * 10}));
  EXPECT_EQ(s.sizes(uint64_t{1} << 30, uint64_t{1} << 40, 96, 8),
            (std::vector<int32_t>{8 * 6, 8 * 6}));
}

TEST(KvSizing, ScalesAllGroupsAlikeWithTheBudget) {
  const Sizing s;
  const uint64_t context = 64 * s.full + 10 * s.window;
  EXPECT_EQ(s.sizes(context), (std::vector<int32_t>{64, 10}));
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t budget = context + random() % (7 * context);
    const auto blocks = s.sizes(budget);
    const uint64_t bytes = kv_pool_bytes(s.spec, blocks);
    ASSERT_LE(bytes, budget);
    ASSERT_GT(bytes + s.window, budget);  // no block's worth is left over
    const double contexts = static_cast<double>(budget) / static_cast<double>(context);
    ASSERT_NEAR(blocks[0] / 64.0, contexts, 0.1);
    ASSERT_NEAR(blocks[1] / 10.0, contexts, 0.1);
  }
}

TEST(KvSizing, SaysWhatOneContextNeeds) {
  const Sizing s;
  const uint64_t context = 64 * s.full + 10 * s.window;
  const auto expect_short = [&](uint64_t budget, uint64_t free_bytes, uint64_t needed) {
    try {
      s.sizes(budget, free_bytes);
      ADD_FAILURE() << "fits " << budget;
    } catch (const OutOfMemory& error) {
      EXPECT_EQ(error.needed_bytes(), needed);
      EXPECT_EQ(error.free_bytes(), std::min(budget, free_bytes));
    }
  };
  expect_short(context - 1, context, context);
  expect_short(0, context, context);
  expect_short(2 * context, 2 * context - 1, 2 * context);
}

TEST(KvSizing, KeepsSlotsIn32Bits) {
  const Sizing s;
  const auto blocks = s.sizes(UINT64_MAX, UINT64_MAX, 1 << 28, 1 << 20);
  EXPECT_EQ(blocks[0], INT32_MAX / 16);
  EXPECT_EQ(blocks[1], 10 << 20);
}

}  // namespace
}  // namespace llorch
