# Debian's cross compiler for arm64; libraries from tools/make_sysroot arm64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
# For tests alone.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
set(LLORCH_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../../build/sysroot/linux-aarch64 CACHE PATH "")
