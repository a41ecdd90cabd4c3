# One backend per binary, chosen here and nowhere else.
set(LLORCH_BACKENDS cpu cuda metal fake)
set(LLORCH_BACKENDS_BUILT cpu cuda fake)
set(LLORCH_BACKEND cpu CACHE STRING "The one backend of the worker: cpu, cuda, metal or fake")
list(LENGTH LLORCH_BACKEND backend_count)
if(NOT backend_count EQUAL 1 OR NOT LLORCH_BACKEND IN_LIST LLORCH_BACKENDS)
  message(FATAL_ERROR "LLORCH_BACKEND='${LLORCH_BACKEND}' is not one of: cpu, cuda, metal, fake")
endif()
if(NOT LLORCH_BACKEND IN_LIST LLORCH_BACKENDS_BUILT)
  message(FATAL_ERROR "LLORCH_BACKEND='${LLORCH_BACKEND}' is not in this tree yet; there are: cpu, cuda, fake")
endif()
# Tests of the cuda backend where there is no GPU: its kernels run on the host, thread by thread.
option(LLORCH_CUDA_EMULATED "Run the cuda backend's kernels on the host, for tests" OFF)
