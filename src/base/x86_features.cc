// By CPUID and XGETBV, read by hand: the compiler's own query answers nothing where its run-time
// library is absent. The bits are those of Intel's SDM, volume 2, CPUID, and volume 1, 13.1.
#include "base/x86_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#include <initializer_list>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llorch {

#if !defined(__x86_64__)

X86Features x86_features() { return {}; }

#else

namespace {

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool all_set(uint64_t word, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if (!(word >> bit & 1)) return false;
  }
  return true;
}

// What state the operating system keeps for a thread; none where it cannot be asked (OSXSAVE).
uint64_t saved_state() {
  if (!all_set(cpuid(1).c, {27})) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// The kernel gives a process the tiles' state when it asks for it: arch_prctl(2).
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

X86Features x86_features() {
  const Registers one = cpuid(1), seven = cpuid(7), more = cpuid(7, 1);
  const uint64_t state = saved_state();
  X86Features has;
  has.ssse3 = all_set(one.c, {0, 9});
  // pclmul, ssse3, fma, sse4.1, sse4.2, popcnt, aes, avx, f16c; bmi, avx2, bmi2; lzcnt.
  has.avx2 = all_set(state, {1, 2}) && all_set(one.c, {1, 9, 12, 19, 20, 23, 25, 28, 29}) &&
             all_set(seven.b, {3, 5, 8}) && all_set(cpuid(0x80000001).c, {5});
  has.avx_vnni = has.avx2 && all_set(more.a, {4});
  // Opmask and both halves of the zmm registers.
  has.avx512 = has.avx2 && all_set(state, {5, 6, 7}) && all_set(seven.b, {16, 17, 28, 30, 31});
  has.avx512_vnni = has.avx512 && all_set(seven.c, {11});
  has.avx512_bf16 = has.avx512 && all_set(more.a, {5});
  // The tiles' configuration and data.
  const bool tiles =
      has.avx512 && all_set(seven.d, {24}) && all_set(state, {17, 18}) && may_use_tiles();
  has.amx_bf16 = tiles && all_set(seven.d, {22});
  has.amx_int8 = tiles && all_set(seven.d, {25});
  return has;
}

#endif

}  // namespace llorch
