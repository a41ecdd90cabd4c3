// The kernels for avx2; see CMakeLists.txt for its flags.
#define LLORCH_ISA avx2
#define LLORCH_ISA_NAME "avx2"
#define LLORCH_KERNELS kAvx2Kernels
#include "backends/cpu/kernels-inl.h"
