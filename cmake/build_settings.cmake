set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

option(LLORCH_TESTS "Build the tests" ON)
option(LLORCH_FUZZ "Build the libFuzzer targets (clang)" OFF)
set(LLORCH_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")

if(LLORCH_SANITIZE)
  # Checks of ours and of the standard library stay in; -O1 keeps reports readable.
  set(CMAKE_CXX_FLAGS_RELEASE "-O1")
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
  add_compile_options(-fsanitize=${LLORCH_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${LLORCH_SANITIZE})
  if(LLORCH_SANITIZE STREQUAL thread AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-Wno-tsan)  # Asio's fences are unknown to it; what they order is locked too
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-Wno-maybe-uninitialized)  # the added checks make it see paths that are not
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES Clang AND LLORCH_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize=function)  # clang 14 cannot assemble it for coroutines
  endif()
  set(static_default OFF)
else()
  set(static_default ON)
endif()
# Tests that put functions of their own in place of the C and C++ libraries', as ThreadSanitizer does.
set(LLORCH_REPLACING_TESTS ON)
if(LLORCH_SANITIZE MATCHES thread)
  set(LLORCH_REPLACING_TESTS OFF)
endif()
option(LLORCH_STATIC "Link the worker fully static" ${static_default})

# One answer: a * b + c is fused where a kernel says so, never where a compiler likes.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Werror;-ffp-contract=off;-ffunction-sections;-fdata-sections>")
add_link_options(-Wl,--gc-sections)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # g++ 12 reports these inside its own headers at -O2 (GCC bugs 105329, 105651).
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
find_package(Threads REQUIRED)
