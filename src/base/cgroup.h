// What the control groups of Linux, v1 or v2, leave to this process: the least that its own group
// and all above it allow. Reads files alone, so that tests can lay out a tree of their own.
#pragma once

#include <string>

namespace llorch::os {

struct CgroupFiles {
  std::string membership = "/proc/self/cgroup";
  std::string mount = "/sys/fs/cgroup";
};

// Processors' worth of time; infinity without a quota.
double cgroup_cpus(const CgroupFiles& files = {});
// Bytes that can still be taken; infinity without a limit. What a group holds of files is given
// back when memory runs short, so it counts as free: the file of a model that has just been read.
double cgroup_free_memory(const CgroupFiles& files = {});

}  // namespace llorch::os
