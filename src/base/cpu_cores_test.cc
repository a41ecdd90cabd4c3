// Trees as kernels lay them out: hyperthreads, hybrid x86, big and little arm64.
#include "base/cpu_cores.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

namespace llorch::os {
namespace {

class Tree {
 public:
  Tree() : root_((std::filesystem::temp_directory_path() / "llorch-cpus-XXXXXX").string()) {
    mkdtemp(root_.data());
  }
  ~Tree() { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const auto file = std::filesystem::path(root_) / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << '\n';
  }
  void siblings(int cpu, const std::string& list) {
    write("system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", list);
  }
  void capacity(int cpu, int value) {
    write("system/cpu/cpu" + std::to_string(cpu) + "/cpu_capacity", std::to_string(value));
  }
  int cores(const std::vector<int>& allowed) const { return compute_cores(allowed, {root_}); }

 private:
  std::string root_;
};

std::vector<int> first(int count) {
  std::vector<int> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

TEST(ComputeCores, AreTheProcessorsWhereNothingIsTold) {
  Tree tree;
  EXPECT_EQ(tree.cores(first(3)), 3);
  EXPECT_EQ(tree.cores({}), 1);
}

TEST(ComputeCores, CountHyperthreadsOnce) {
  Tree tree;
  for (int cpu = 0; cpu < 8; ++cpu) {
    const int core = cpu % 4;
    tree.siblings(cpu, std::to_string(core) + "," + std::to_string(core + 4));
  }
  EXPECT_EQ(tree.cores(first(8)), 4);
  EXPECT_EQ(tree.cores({0, 4}), 1);
  EXPECT_EQ(tree.cores({0, 5, 6}), 3);
}

// Two performance cores with two threads each, four efficient cores.
TEST(ComputeCores, OfHybridMachinesAreTheFastOnes) {
  Tree tree;
  tree.write("cpu_core/cpus", "0-3");
  tree.write("cpu_atom/cpus", "4-7");
  for (int cpu = 0; cpu < 4; ++cpu) tree.siblings(cpu, cpu < 2 ? "0-1" : "2-3");
  for (int cpu = 4; cpu < 8; ++cpu) tree.siblings(cpu, std::to_string(cpu));
  EXPECT_EQ(tree.cores(first(8)), 2);
  EXPECT_EQ(tree.cores({2, 3, 4}), 1);
  EXPECT_EQ(tree.cores({4, 5, 6}), 3);
}

TEST(ComputeCores, ReadListsOfRanges) {
  Tree tree;
  tree.write("cpu_core/cpus", "0,2-3,10-11");
  EXPECT_EQ(tree.cores(first(12)), 5);
  EXPECT_EQ(tree.cores({1, 4, 9}), 3);
  EXPECT_EQ(tree.cores({1, 11}), 1);
}

TEST(ComputeCores, OfBigAndLittleAreThoseHalfAsFastAsTheFastest) {
  Tree tree;
  for (const auto& [cpu, speed] : {std::pair{0, 325}, {1, 325}, {2, 511}, {3, 790}, {4, 1024}}) {
    tree.capacity(cpu, speed);
  }
  EXPECT_EQ(tree.cores(first(5)), 2);
  EXPECT_EQ(tree.cores({0, 1, 2}), 3);
  EXPECT_EQ(tree.cores({0, 1, 3}), 1);
}

}  // namespace
}  // namespace llorch::os
