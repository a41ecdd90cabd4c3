// The kernels for neondot; see CMakeLists.txt for its flags.
#define LLORCH_ISA neondot
#define LLORCH_ISA_NAME "neondot"
#define LLORCH_KERNELS neon_dot_kernels
#define LLORCH_BASE kNeonKernels
#include "backends/cpu/kernels_dot-inl.h"
