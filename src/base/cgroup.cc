#include "base/cgroup.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>

namespace llorch::os {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Folder of this process's cgroup for `controller` ("" = the unified tree), and its mount point.
struct Cgroup {
  std::string mount, path;
};
Cgroup find_cgroup(const CgroupFiles& files, const std::string& controller) {
  std::istringstream lines(read_text(files.membership));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool match = controller.empty() ? names == ",,"
                                          : names.find("," + controller + ",") != std::string::npos;
    if (!match) continue;
    return {files.mount + (controller.empty() ? "" : "/" + controller), line.substr(second + 1)};
  }
  return {};
}

// The least value that `read` gives for this cgroup and its ancestors. Inside a container the path
// may be the host's: then only the mount point itself exists, and it is ours.
template <class Read>
double least_over_ancestors(const Cgroup& group, Read read) {
  double least = kNoLimit;
  if (group.mount.empty()) return least;
  for (std::string path = group.path;;) {
    least = std::min(least, read(group.mount + path + "/"));
    if (path.empty() || path == "/") break;
    path.resize(path.rfind('/'));
  }
  return least;
}

// "max" and anything that is no number mean: no limit.
double number_or_no_limit(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return end == text.c_str() || value < 0 ? kNoLimit : value;
}

double number_or_zero(const std::string& text) {
  const double value = number_or_no_limit(text);
  return std::isfinite(value) ? value : 0;
}

// The value of a line "key value"; 0 if there is none.
double stat_value(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string name, value; lines >> name >> value;) {
    if (name == key) return number_or_zero(value);
  }
  return 0;
}

// `kind`: "" in v2, "total_" in v1, where a plain key leaves out the groups below.
double free_below(double limit, double used, const std::string& stat, const std::string& kind) {
  if (!std::isfinite(limit)) return kNoLimit;
  const double files =
      stat_value(stat, kind + "inactive_file") + stat_value(stat, kind + "active_file");
  return std::max(0.0, limit - std::max(0.0, used - files));
}

}  // namespace

double cgroup_cpus(const CgroupFiles& files) {
  const double v2 = least_over_ancestors(find_cgroup(files, ""), [](const std::string& folder) {
    std::istringstream text(read_text(folder + "cpu.max"));
    std::string quota, period;
    text >> quota >> period;
    const double length = number_or_no_limit(period);
    return std::isfinite(length) && length > 0 ? number_or_no_limit(quota) / length : kNoLimit;
  });
  const double v1 = least_over_ancestors(find_cgroup(files, "cpu"), [](const std::string& folder) {
    const double period = number_or_no_limit(read_text(folder + "cpu.cfs_period_us"));
    return std::isfinite(period) && period > 0
               ? number_or_no_limit(read_text(folder + "cpu.cfs_quota_us")) / period
               : kNoLimit;
  });
  return std::min(v1, v2);
}

double cgroup_free_memory(const CgroupFiles& files) {
  const double v2 = least_over_ancestors(find_cgroup(files, ""), [](const std::string& folder) {
    // Beyond memory.high a group is throttled to a crawl.
    const double limit = std::min(number_or_no_limit(read_text(folder + "memory.max")),
                                  number_or_no_limit(read_text(folder + "memory.high")));
    return free_below(limit, number_or_zero(read_text(folder + "memory.current")),
                      read_text(folder + "memory.stat"), "");
  });
  const double v1 =
      least_over_ancestors(find_cgroup(files, "memory"), [](const std::string& folder) {
        return free_below(number_or_no_limit(read_text(folder + "memory.limit_in_bytes")),
                          number_or_zero(read_text(folder + "memory.usage_in_bytes")),
                          read_text(folder + "memory.stat"), "total_");
      });
  return std::min(v1, v2);
}

}  // namespace llorch::os
