// The kernels for avx512; see CMakeLists.txt for its flags.
#define LLORCH_ISA avx512
#define LLORCH_ISA_NAME "avx512"
#define LLORCH_KERNELS kAvx512Kernels
#include "backends/cpu/kernels-inl.h"
