#include "base/cpu_cores.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

namespace llorch::os {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// "0-3,8": whether `cpu` is one of them.
bool lists(const std::string& list, int cpu) {
  std::istringstream parts(list);
  for (std::string part; std::getline(parts, part, ',');) {
    char* end = nullptr;
    const long first = std::strtol(part.c_str(), &end, 10);
    if (end == part.c_str()) continue;
    const long last = *end == '-' ? std::strtol(end + 1, nullptr, 10) : first;
    if (first <= cpu && cpu <= last) return true;
  }
  return false;
}

}  // namespace

int compute_cores(const std::vector<int>& allowed, const CpuFiles& files) {
  const auto folder = [&](int cpu) {
    return files.devices + "/system/cpu/cpu" + std::to_string(cpu) + "/";
  };
  // Hybrid x86 lists its performance cores; arm64 tells each processor's speed in parts of the
  // fastest one's, and what is not half as fast would be waited for.
  const std::string fast_list = read_line(files.devices + "/cpu_core/cpus");
  std::vector<int> speeds;
  for (const int cpu : allowed) {
    const int listed = fast_list.empty() || lists(fast_list, cpu) ? 1 : 0;
    const std::string capacity = read_line(folder(cpu) + "cpu_capacity");
    speeds.push_back(capacity.empty() ? listed : std::atoi(capacity.c_str()));
  }
  const int fastest = speeds.empty() ? 0 : *std::max_element(speeds.begin(), speeds.end());
  std::set<std::string> cores;
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (2 * speeds[i] < fastest) continue;
    const std::string siblings = read_line(folder(allowed[i]) + "topology/thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(allowed[i]) : siblings);
  }
  return std::max(1, static_cast<int>(cores.size()));
}

}  // namespace llorch::os
