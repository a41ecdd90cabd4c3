#include "probe/features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <initializer_list>

namespace llorch::bench {
namespace {

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned part = 0) {
  Registers r;
  __get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool all_set(uint64_t word, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if (!(word >> bit & 1)) return false;
  }
  return true;
}

// What state the operating system keeps for a thread; nothing where it cannot be asked.
uint64_t saved_state() {
  if (!all_set(cpuid(1).c, {27})) return 0;  // OSXSAVE
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(2)
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

Features find_features() {
  const Registers one = cpuid(1), seven = cpuid(7), more = cpuid(7, 1);
  const uint64_t state = saved_state();
  Features f;
  f.avx2 = all_set(state, {1, 2}) && all_set(one.c, {12, 28}) && all_set(seven.b, {5});
  f.avx_vnni = f.avx2 && all_set(more.a, {4});
  f.avx512 = f.avx2 && all_set(state, {5, 6, 7}) && all_set(seven.b, {16, 17, 30, 31});
  f.avx512_vnni = f.avx512 && all_set(seven.c, {11});
  f.avx512_bf16 = f.avx512 && all_set(more.a, {5});
  const bool tiles =
      f.avx512 && all_set(seven.d, {24}) && all_set(state, {17, 18}) && may_use_tiles();
  f.amx_bf16 = tiles && all_set(seven.d, {22});
  f.amx_int8 = tiles && all_set(seven.d, {25});
  return f;
}

}  // namespace llorch::bench
