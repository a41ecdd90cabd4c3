// Trees as kernels lay them out, v1 and v2, with limits in the group itself and above it.
#include "base/cgroup.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace llorch::os {
namespace {

class Tree {
 public:
  Tree() : root_(std::filesystem::temp_directory_path() / "llorch-cgroup-XXXXXX") {
    std::string name = root_.string();
    root_ = mkdtemp(name.data());
  }
  ~Tree() { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const auto file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  CgroupFiles files() const { return {(root_ / "membership").string(), (root_ / "fs").string()}; }
  double memory() const { return cgroup_free_memory(files()); }
  double cpus() const { return cgroup_cpus(files()); }

 private:
  std::filesystem::path root_;
};

TEST(Cgroup, WithoutAnyThereIsNoLimit) {
  Tree tree;
  EXPECT_TRUE(std::isinf(tree.memory()));
  EXPECT_TRUE(std::isinf(tree.cpus()));
  tree.write("membership", "0::/\n");
  EXPECT_TRUE(std::isinf(tree.memory()));
  tree.write("membership", "nonsense\n:\n1:\n");
  EXPECT_TRUE(std::isinf(tree.memory()));
}

TEST(Cgroup, V2TakesTheLeastOfTheGroupAndThoseAbove) {
  Tree tree;
  tree.write("membership", "0::/kubepods/pod1/worker\n");
  tree.write("fs/kubepods/pod1/worker/memory.max", "max\n");
  tree.write("fs/kubepods/pod1/worker/memory.current", "100\n");
  tree.write("fs/kubepods/pod1/worker/cpu.max", "max 100000\n");
  EXPECT_TRUE(std::isinf(tree.memory()));
  EXPECT_TRUE(std::isinf(tree.cpus()));
  tree.write("fs/kubepods/pod1/memory.max", "1000\n");
  tree.write("fs/kubepods/pod1/memory.current", "400\n");
  tree.write("fs/kubepods/pod1/cpu.max", "250000 100000\n");
  EXPECT_EQ(tree.memory(), 600);
  EXPECT_EQ(tree.cpus(), 2.5);
  tree.write("fs/kubepods/memory.max", "900\n");
  tree.write("fs/kubepods/memory.current", "700\n");
  tree.write("fs/kubepods/cpu.max", "150000 100000\n");
  EXPECT_EQ(tree.memory(), 200);
  EXPECT_EQ(tree.cpus(), 1.5);
}

TEST(Cgroup, V2CountsFilesAsFreeAndHeedsTheThrottle) {
  Tree tree;
  tree.write("membership", "0::/a\n");
  tree.write("fs/a/memory.max", "1000\n");
  tree.write("fs/a/memory.current", "950\n");
  tree.write("fs/a/memory.stat",
             "anon 300\nfile 640\ninactive_file 600\nactive_file 40\nshmem 0\n");
  EXPECT_EQ(tree.memory(), 690);
  tree.write("fs/a/memory.high", "500\n");
  EXPECT_EQ(tree.memory(), 190);
  tree.write("fs/a/memory.stat", "");
  EXPECT_EQ(tree.memory(), 0);  // above the throttle already
}

TEST(Cgroup, InAContainerTheMountItselfIsTheGroup) {
  Tree tree;
  tree.write("membership", "0::/system.slice/docker-abc.scope\n");
  tree.write("fs/memory.max", "1000\n");
  tree.write("fs/memory.current", "1\n");
  tree.write("fs/cpu.max", "100000 100000\n");
  EXPECT_EQ(tree.memory(), 999);
  EXPECT_EQ(tree.cpus(), 1);
}

TEST(Cgroup, V1HasATreeForEachController) {
  Tree tree;
  tree.write("membership", "12:cpu,cpuacct:/docker/a\n5:memory:/docker/a\n0::/\n");
  tree.write("fs/memory/docker/a/memory.limit_in_bytes", "9223372036854771712\n");
  tree.write("fs/memory/docker/a/memory.usage_in_bytes", "400\n");
  tree.write("fs/memory/docker/memory.limit_in_bytes", "1000\n");
  tree.write("fs/memory/docker/memory.usage_in_bytes", "500\n");
  tree.write("fs/memory/docker/memory.stat",
             "inactive_file 7\ntotal_inactive_file 100\ntotal_active_file 50\n");
  tree.write("fs/cpu/docker/a/cpu.cfs_quota_us", "-1\n");
  tree.write("fs/cpu/docker/a/cpu.cfs_period_us", "100000\n");
  tree.write("fs/cpu/cpu.cfs_quota_us", "300000\n");
  tree.write("fs/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(tree.memory(), 650);
  EXPECT_EQ(tree.cpus(), 3);
}

}  // namespace
}  // namespace llorch::os
