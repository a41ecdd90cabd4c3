#include "base/memory_reserve.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace llorch {
namespace {

// Given back piece by piece, so that one failure does not cost all of it.
constexpr size_t kPieceBytes = 16 * 1024;

// Never destroyed: threads may allocate until the end.
struct Reserve {
  std::mutex mutex;
  std::vector<void*> pieces;  // the first `held` are there
  std::atomic<size_t> held{0};
};

Reserve& reserve() {
  static Reserve& reserve = *new Reserve;
  return reserve;
}

thread_local bool must_allocate = false;

// Called by operator new when there is no memory: it tries again once this returns.
void give_a_piece() {
  if (!must_allocate) throw std::bad_alloc();
  Reserve& r = reserve();
  const std::lock_guard lock(r.mutex);
  if (r.held == 0) throw std::bad_alloc();
  std::free(r.pieces[--r.held]);
}

}  // namespace

void set_memory_aside(size_t bytes) {
  reserve().pieces.resize(bytes / kPieceBytes);
  refill_memory_reserve();
  std::set_new_handler(give_a_piece);
}

bool refill_memory_reserve() {
  Reserve& r = reserve();
  if (r.held == r.pieces.size()) return true;
  const std::lock_guard lock(r.mutex);
  while (r.held < r.pieces.size()) {
    void* piece = std::malloc(kPieceBytes);
    if (piece == nullptr) return false;
    std::memset(piece, 1, kPieceBytes);  // resident from now on
    r.pieces[r.held++] = piece;
  }
  return true;
}

MustAllocate::MustAllocate(bool must) : before_(must_allocate) { must_allocate = must; }
MustAllocate::~MustAllocate() { must_allocate = before_; }

}  // namespace llorch
