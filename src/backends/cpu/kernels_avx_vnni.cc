// The kernels for avxvnni; see CMakeLists.txt for its flags.
#define LLORCH_ISA avxvnni
#define LLORCH_ISA_NAME "avxvnni"
#define LLORCH_KERNELS avx_vnni_kernels
#define LLORCH_BASE kAvx2Kernels
#define LLORCH_VNNI
#include "backends/cpu/kernels_dot-inl.h"
