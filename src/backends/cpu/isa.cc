// Finds the instruction sets by CPUID and XGETBV, read by hand: the compiler's own query answers
// nothing where its run-time library is absent.
#include "backends/cpu/isa.h"

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#ifdef LLORCH_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llorch::cpu {
namespace {

#if defined(__x86_64__)

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

// What state the operating system keeps for a thread.
uint64_t saved_state() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool all_set(uint64_t word, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if (!(word >> bit & 1)) return false;
  }
  return true;
}

#ifdef LLORCH_AMX
// The kernel gives a process the tiles' state when it asks for it: arch_prctl(2).
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

// Best first. Each set needs every feature that its source is compiled with.
std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found;
  const Registers one = cpuid(1), seven = cpuid(7);
  const bool os_saves = all_set(one.c, {27});  // OSXSAVE
  const uint64_t state = os_saves ? saved_state() : 0;
  // pclmul, ssse3, fma, sse4.1, sse4.2, popcnt, aes, avx, f16c; bmi, avx2, bmi2; lzcnt.
  const bool avx2 = all_set(state, {1, 2}) && all_set(one.c, {1, 9, 12, 19, 20, 23, 25, 28, 29}) &&
                    all_set(seven.b, {3, 5, 8}) && all_set(cpuid(0x80000001).c, {5});
  // f, dq, cd, bw, vl; opmask and both halves of the zmm registers.
  if (avx2 && all_set(state, {5, 6, 7}) && all_set(seven.b, {16, 17, 28, 30, 31})) {
    const bool vnni = all_set(seven.c, {11});
#ifdef LLORCH_AMX
    // amx-bf16, amx-tile, amx-int8; the tiles' configuration and data.
    if (vnni && all_set(seven.d, {22, 24, 25}) && all_set(state, {17, 18}) && may_use_tiles()) {
      found.push_back(&amx_kernels());
    }
#endif
    if (vnni) found.push_back(&avx512_vnni_kernels());
    found.push_back(&kAvx512Kernels);
  }
  if (avx2 && all_set(cpuid(7, 1).a, {4})) found.push_back(&avx_vnni_kernels());
  if (avx2) found.push_back(&kAvx2Kernels);
  if (all_set(one.c, {0, 9})) found.push_back(&kSseKernels);  // sse3, ssse3
  return found;
}

#else

#if defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname(feature, &value, &bytes, nullptr, 0) == 0 && value != 0;
}
bool has_dot_products() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_int8_matrices() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
bool has_dot_products() { return getauxval(AT_HWCAP) & 1ul << 20; }    // HWCAP_ASIMDDP
bool has_int8_matrices() { return getauxval(AT_HWCAP2) & 1ul << 13; }  // HWCAP2_I8MM
#endif

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found;
  if (has_dot_products() && has_int8_matrices()) found.push_back(&neon_i8mm_kernels());
  if (has_dot_products()) found.push_back(&neon_dot_kernels());
  found.push_back(&kNeonKernels);
  return found;
}

#endif

}  // namespace

const Kernels& choose_kernels() {
  const std::vector<const Kernels*> found = available();
  if (found.empty()) {
    throw Error(ErrorCode::kDevice, "[cpu] this processor has not got SSSE3, which is the least");
  }
  const char* wanted = std::getenv("LLORCH_CPU_ISA");
  if (wanted == nullptr || *wanted == 0) return *found.front();
  std::string names;
  for (const Kernels* kernels : found) {
    if (std::string_view(wanted) == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw Error(ErrorCode::kDevice, std::string("[cpu] LLORCH_CPU_ISA=") + wanted +
                                      " is not to be had here; there are: " + names);
}

}  // namespace llorch::cpu
