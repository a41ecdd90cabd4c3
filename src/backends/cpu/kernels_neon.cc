// The kernels for neon; see CMakeLists.txt for its flags.
#define LLORCH_ISA neon
#define LLORCH_ISA_NAME "neon"
#define LLORCH_KERNELS kNeonKernels
#include "backends/cpu/kernels-inl.h"
