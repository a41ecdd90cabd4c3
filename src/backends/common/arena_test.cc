// Placement by lifetimes: reuse, first fit, the limit.
#include "backends/common/arena.h"

#include "base/error.h"
#include "gtest/gtest.h"

namespace llorch {
namespace {

TEST(Arena, ReusesTheLowestGapThatFits) {
  Arena arena;
  EXPECT_EQ(arena.take(10), 0u);
  EXPECT_EQ(arena.take(20), 10u);
  EXPECT_EQ(arena.take(5), 30u);
  arena.give(0);
  EXPECT_EQ(arena.take(11), 35u);
  EXPECT_EQ(arena.take(4), 0u);
  EXPECT_EQ(arena.take(6), 4u);
  arena.give(10);
  arena.give(4);
  EXPECT_EQ(arena.take(26), 4u);
  EXPECT_EQ(arena.peak(), 46u);
}

TEST(Arena, GivesTheSameOffsetsOnceFixed) {
  Arena arena;
  const auto tape = [&arena] {
    const uint64_t a = arena.take(3), b = arena.take(7);
    arena.give(a);
    const uint64_t c = arena.take(5), d = arena.take(2);
    for (const uint64_t offset : {b, c, d}) arena.give(offset);
    return std::vector<uint64_t>{a, b, c, d};
  };
  const auto first = tape();
  arena.fix();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(tape(), first);
  EXPECT_EQ(arena.peak(), 15u);
}

TEST(Arena, RefusesMoreThanItWasFixedTo) {
  Arena arena;
  arena.give(arena.take(8));
  arena.fix();
  EXPECT_THROW(arena.take(9), Error);
  EXPECT_EQ(arena.take(8), 0u);
  EXPECT_THROW(arena.take(1), Error);
  arena.give(0);
  arena.reset();
  EXPECT_EQ(arena.take(100), 0u);
}

}  // namespace
}  // namespace llorch
