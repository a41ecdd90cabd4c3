// A stack of its own for each thread of an emulated block. Knows no block.
#pragma once

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstddef>

namespace llorch::cuda::emulated {

// Where a fiber, or the host's own stack, left off. The host thread that started it goes on with
// it.
class Fiber {
 public:
  // Makes the next switch to this call body(argument) on a fresh stack; body never returns.
  void start(std::byte* stack, size_t bytes, void (*body)(void*), void* argument);
  // Leaves off in `from` and goes on in `to`.
  static void change(Fiber& from, Fiber& to);

 private:
#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
};

}  // namespace llorch::cuda::emulated
