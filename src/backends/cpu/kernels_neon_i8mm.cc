// The kernels for neoni8mm; see CMakeLists.txt for its flags.
#define LLORCH_ISA neoni8mm
#define LLORCH_ISA_NAME "neoni8mm"
#define LLORCH_KERNELS neon_i8mm_kernels
#define LLORCH_BASE kNeonKernels
#include "backends/cpu/kernels_dot-inl.h"
