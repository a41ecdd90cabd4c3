// How many of the processors that a process may use are worth a compute thread, by what Linux tells
// of them. Reads files alone, so that tests can lay out a tree of their own.
#pragma once

#include <string>
#include <vector>

namespace llorch::os {

struct CpuFiles {
  std::string devices = "/sys/devices";
};

// Cores, not hyperthreads, and of a machine with fast and slow ones the fast ones alone: threads
// share each piece of work and wait for the last, and a few fast cores have the memory busy that
// decoding waits for. Slow cores count where `allowed` has no others. At least 1.
int compute_cores(const std::vector<int>& allowed, const CpuFiles& files = {});

}  // namespace llorch::os
