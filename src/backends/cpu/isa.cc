// The instruction sets of this machine: x86 by its features, ARM by what its system says.
#include "backends/cpu/isa.h"

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/x86_features.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace llorch::cpu {
namespace {

#if defined(__x86_64__)

// Best first. Each set needs every feature that its source is compiled with.
std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found;
  const X86Features has = x86_features();
#ifdef LLORCH_AMX
  if (has.avx512_vnni && has.amx_bf16 && has.amx_int8) found.push_back(&amx_kernels());
#endif
  if (has.avx512_vnni) found.push_back(&avx512_vnni_kernels());
  if (has.avx512) found.push_back(&kAvx512Kernels);
  if (has.avx_vnni) found.push_back(&avx_vnni_kernels());
  if (has.avx2) found.push_back(&kAvx2Kernels);
  if (has.ssse3) found.push_back(&kSseKernels);
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
