# CUDA C++ for the cuda backend: nvcc of a toolkit, and the CUDA runtime as a static library. NVIDIA's other libraries
# are opened at run time, so no toolkit's libraries are needed. A build that is emulated needs no toolkit at all.
if(NOT LLORCH_BACKEND STREQUAL cuda OR LLORCH_CUDA_EMULATED)
  return()
endif()
if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  # The order of tools/deps.
  find_program(CMAKE_CUDA_COMPILER nvcc PATHS ${PROJECT_SOURCE_DIR}/build/cuda-toolkit/bin /usr/local/cuda/bin NO_CACHE)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "The cuda backend needs a CUDA toolkit of 12.4 or later: tools/deps cuda says how to get one")
  endif()
endif()
if(NOT DEFINED CMAKE_CUDA_HOST_COMPILER)
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)  # 90: its code, and PTX for what comes later
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
  message(FATAL_ERROR "The cuda backend needs a CUDA toolkit of 12.4 or later, this is ${CMAKE_CUDA_COMPILER_VERSION} "
                      "(${CMAKE_CUDA_COMPILER}): tools/deps cuda says how to get one")
endif()
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
# One answer: a * b + c is fused where a kernel says so.
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 --fmad=false -DNDEBUG")
set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -Werror all-warnings -Xcompiler=-Wall,-Wextra")
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  string(APPEND CMAKE_CUDA_FLAGS " --compress-mode=size")  # a third of the default's
else()
  string(APPEND CMAKE_CUDA_FLAGS " -Xfatbin=-compress-all")
endif()
find_package(CUDAToolkit QUIET REQUIRED)
# glibc stays dynamic, for dlopen; nothing else does.
add_link_options(-static-libstdc++ -static-libgcc)
