// Aligned memory of the CPU backend, huge pages where they help. Knows nothing of what lies in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace llorch::cpu {

struct FreeAligned {
  std::align_val_t alignment{64};
  void operator()(std::byte* data) const { ::operator delete(data, alignment); }
};

class Memory {
 public:
  Memory() = default;
  // At least 64-byte aligned, not zeroed. `what` names it in the OutOfMemory that is thrown when
  // the machine has not got so much left.
  Memory(uint64_t bytes, const char* what);

  // Writes zeros, so that the kernel gives all of it now: a promise is no memory.
  void commit();

  std::byte* data() const { return data_.get(); }
  uint64_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  std::unique_ptr<std::byte, FreeAligned> data_;
  uint64_t bytes_ = 0;
};

}  // namespace llorch::cpu
