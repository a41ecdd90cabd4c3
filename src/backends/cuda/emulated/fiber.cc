// On x86-64 a switch is a dozen instructions; swapcontext() makes two system calls, and a kernel
// switches at every step of a warp.
#include "backends/cuda/emulated/fiber.h"

#include <cstdint>

#if defined(__x86_64__)

// What the System V ABI lets a callee expect to find unchanged is on the stack that is left.
asm(R"(
.text
.globl llorch_emulated_change
.type llorch_emulated_change, @function
llorch_emulated_change:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.globl llorch_emulated_enter
.type llorch_emulated_enter, @function
llorch_emulated_enter:
  movq %r12, %rdi
  callq *%rbx
  ud2
.section .note.GNU-stack,"",@progbits
.text
)");

extern "C" {
void llorch_emulated_change(void** from, void* to);
void llorch_emulated_enter();
}

namespace llorch::cuda::emulated {

void Fiber::start(std::byte* stack, size_t bytes, void (*body)(void*), void* argument) {
  auto* top =
      reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15});
  // As change() pushes them: the address to return to first, then rbp, rbx, r12 to r15.
  *--top = reinterpret_cast<uint64_t>(&llorch_emulated_enter);
  *--top = 0;
  *--top = reinterpret_cast<uint64_t>(body);      // rbx
  *--top = reinterpret_cast<uint64_t>(argument);  // r12
  for (int i = 0; i < 3; ++i) *--top = 0;
  stack_pointer_ = top;
}

void Fiber::change(Fiber& from, Fiber& to) {
  llorch_emulated_change(&from.stack_pointer_, to.stack_pointer_);
}

}  // namespace llorch::cuda::emulated

#else

namespace llorch::cuda::emulated {
namespace {

void enter(unsigned body_high, unsigned body_low, unsigned high, unsigned low) {
  const auto join = [](unsigned h, unsigned l) { return (uint64_t{h} << 32) | l; };
  reinterpret_cast<void (*)(void*)>(join(body_high, body_low))(
      reinterpret_cast<void*>(join(high, low)));
}

}  // namespace

void Fiber::start(std::byte* stack, size_t bytes, void (*body)(void*), void* argument) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  const auto code = reinterpret_cast<uint64_t>(body), data = reinterpret_cast<uint64_t>(argument);
  makecontext(&context_, reinterpret_cast<void (*)()>(&enter), 4, static_cast<unsigned>(code >> 32),
              static_cast<unsigned>(code), static_cast<unsigned>(data >> 32),
              static_cast<unsigned>(data));
}

void Fiber::change(Fiber& from, Fiber& to) { swapcontext(&from.context_, &to.context_); }

}  // namespace llorch::cuda::emulated

#endif
