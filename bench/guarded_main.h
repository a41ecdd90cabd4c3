// What main() of the benchmarks has in common.
#pragma once

#include <cstdio>
#include <exception>

namespace llorch::bench {

// What `run` returns; 1 after it has thrown, and the reason on stderr.
inline int guarded_main(int (*run)(int argc, char** argv), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace llorch::bench
