// The kernels for sse; see CMakeLists.txt for its flags.
#define LLORCH_ISA sse
#define LLORCH_ISA_NAME "sse"
#define LLORCH_KERNELS kSseKernels
#include "backends/cpu/kernels-inl.h"
