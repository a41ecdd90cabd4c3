// Which instruction sets this machine runs, and the kernels for the best of them.
#pragma once

#include "backends/cpu/kernels.h"

namespace llorch::cpu {

// The widest set that the processor and the operating system support. LLORCH_CPU_ISA asks
// for one by Kernels::name, for tests. Throws Error{kDevice} if it cannot be had.
const Kernels& choose_kernels();

}  // namespace llorch::cpu
