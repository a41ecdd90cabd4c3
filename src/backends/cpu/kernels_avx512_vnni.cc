// The kernels for avx512vnni; see CMakeLists.txt for its flags.
#define LLORCH_ISA avx512vnni
#define LLORCH_ISA_NAME "avx512vnni"
#define LLORCH_KERNELS avx512_vnni_kernels
#define LLORCH_BASE kAvx512Kernels
#define LLORCH_VNNI
#include "backends/cpu/kernels_dot-inl.h"
