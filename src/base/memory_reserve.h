// Memory set aside, so that a worker that finds no more can still refuse, tell and clean up.
//
// What a request asks for may fail: std::bad_alloc ends that request. What keeps the books of all
// requests must not: it runs where a MustAllocate lives, and takes from the reserve then.
#pragma once

#include <cstddef>

namespace llorch {

// Sets `bytes` aside; once, before other threads start. Until then nothing below has an effect.
void set_memory_aside(size_t bytes);

// Tries to make the reserve whole again. False while that fails: better take no new work then. Any
// thread; cheap if nothing was taken.
bool refill_memory_reserve();

// While one lives, an allocation by operator new on its thread that finds no memory takes from the
// reserve, and throws only once that is empty too.
class MustAllocate {
 public:
  MustAllocate() : MustAllocate(true) {}
  ~MustAllocate();
  MustAllocate(const MustAllocate&) = delete;
  MustAllocate& operator=(const MustAllocate&) = delete;

 protected:
  explicit MustAllocate(bool must);

 private:
  const bool before_;
};

// Within a MustAllocate: here it throws at once.
class MayFail : MustAllocate {
 public:
  MayFail() : MustAllocate(false) {}
};

}  // namespace llorch
