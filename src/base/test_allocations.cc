#include "base/test_allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace llorch {
namespace {

thread_local uint64_t count = 0;
thread_local bool is_tester = false;  // the thread that made the FailAllocation

enum class Target { kNobody, kTester, kOthers };
std::atomic<Target> target{Target::kNobody};
std::atomic<int64_t> left{0};

bool fails() {
  ++count;
  const Target now = target;
  if (now == Target::kNobody || is_tester != (now == Target::kTester)) return false;
  return left.fetch_sub(1) == 0;
}

}  // namespace

uint64_t allocations() { return count; }

FailAllocation::FailAllocation(int64_t n, Where where) {
  is_tester = true;
  left = n;
  target = where == Where::kThisThread ? Target::kTester : Target::kOthers;
}

FailAllocation::~FailAllocation() {
  target = Target::kNobody;
  is_tester = false;
}

bool FailAllocation::happened() const { return left < 0; }

}  // namespace llorch

// As the standard has it: the new-handler is asked whenever there is no memory.
void* operator new(size_t bytes) {
  bool fails = llorch::fails();
  for (;;) {
    if (!fails) {
      if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
    }
    fails = false;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
