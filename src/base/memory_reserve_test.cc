#include "base/memory_reserve.h"

#include <gtest/gtest.h>

#include <new>

#include "base/test_allocations.h"

namespace llorch {
namespace {

constexpr size_t kBytes = 64 * 1024;  // four pieces

// A new-expression could be optimised away.
void allocate_while_there_is_no_memory() {
  const FailAllocation fail(0, FailAllocation::Where::kThisThread);
  ::operator delete(::operator new(8));
}

class MemoryReserve : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { set_memory_aside(kBytes); }
  void SetUp() override { ASSERT_TRUE(refill_memory_reserve()); }
};

TEST_F(MemoryReserve, IsForThoseAloneWhoMustAllocate) {
  EXPECT_THROW(allocate_while_there_is_no_memory(), std::bad_alloc);
  const MustAllocate must;
  EXPECT_NO_THROW(allocate_while_there_is_no_memory());
  {
    const MayFail may;
    EXPECT_THROW(allocate_while_there_is_no_memory(), std::bad_alloc);
    const MustAllocate again;
    EXPECT_NO_THROW(allocate_while_there_is_no_memory());
  }
  EXPECT_NO_THROW(allocate_while_there_is_no_memory());
}

TEST_F(MemoryReserve, IsGivenPieceByPieceUntilItIsEmptyAndCanBeRefilled) {
  const MustAllocate must;
  for (int i = 0; i < 4; ++i) EXPECT_NO_THROW(allocate_while_there_is_no_memory()) << i;
  EXPECT_THROW(allocate_while_there_is_no_memory(), std::bad_alloc);
  EXPECT_TRUE(refill_memory_reserve());
  EXPECT_NO_THROW(allocate_while_there_is_no_memory());
}

}  // namespace
}  // namespace llorch
