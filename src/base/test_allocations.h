// For tests: replaces operator new and delete of the program that links this, to count allocations
// and to make one of them fail.
#pragma once

#include <cstdint>

namespace llorch {

uint64_t allocations();  // by this thread so far

// Makes one allocation find no memory: the n-th from now on, counted from 0. One object at a time.
class FailAllocation {
 public:
  enum class Where { kThisThread, kOtherThreads };
  FailAllocation(int64_t n, Where where);
  ~FailAllocation();
  FailAllocation(const FailAllocation&) = delete;
  FailAllocation& operator=(const FailAllocation&) = delete;

  bool happened() const;
};

}  // namespace llorch
