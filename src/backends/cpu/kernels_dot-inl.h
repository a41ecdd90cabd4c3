// The products of quantised weights with the instructions made for them; all else is the table that
// LLORCH_BASE names. Included like kernels-inl.h; on x86 with LLORCH_VNNI.
#pragma once

#include "backends/cpu/quantised-inl.h"

namespace llorch::cpu {

const Kernels& LLORCH_KERNELS() {
  static const Kernels kernels = [] {
    Kernels k = LLORCH_BASE;
    k.name = LLORCH_ISA_NAME;
    k.matmul[kQ8_0] = LLORCH_ISA::matmul_quantised<kQ8_0>;
    k.matmul[kQ4_0] = LLORCH_ISA::matmul_quantised<kQ4_0>;
    k.matmul[kQ4_K] = LLORCH_ISA::matmul_quantised<kQ4_K>;
    k.matmul[kQ5_K] = LLORCH_ISA::matmul_quantised<kQ5_K>;
    k.matmul[kQ6_K] = LLORCH_ISA::matmul_quantised<kQ6_K>;
    k.matmul[kIQ4_NL] = LLORCH_ISA::matmul_quantised<kIQ4_NL>;
    return k;
  }();
  return kernels;
}

}  // namespace llorch::cpu
