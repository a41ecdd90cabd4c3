// Aligned memory with an honest answer when there is none. Knows nothing of what lies in it.
#include "backends/cpu/memory.h"

#include <cstring>
#include <new>
#include <span>

#include "base/error.h"
#include "base/os.h"

namespace llorch::cpu {

Memory::Memory(uint64_t bytes, const char* what) {
  constexpr uint64_t kHugePage = uint64_t{2} << 20;
  if (bytes == 0) return;
  // Kernels may read one vector past the end.
  const uint64_t padded = bytes + 64;
  // The kernel promises more than it has; small pieces are not worth asking for.
  if (padded >= kHugePage) {
    const uint64_t free = os::free_memory_bytes();
    if (padded > free) throw OutOfMemory(what, padded, free);
  }
  const std::align_val_t alignment{padded >= kHugePage ? kHugePage : 64};
  void* data = ::operator new(padded, alignment, std::nothrow);
  if (data == nullptr) throw OutOfMemory(what, padded, os::free_memory_bytes());
  data_ = {static_cast<std::byte*>(data), FreeAligned{alignment}};
  bytes_ = bytes;
  if (padded >= kHugePage) os::prefer_huge_pages({data_.get(), padded});
}

void Memory::commit() {
  if (bytes_ > 0) std::memset(data_.get(), 0, bytes_);
}

}  // namespace llorch::cpu
