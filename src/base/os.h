// Every operating-system call of the project, behind one header: os_posix.cc or os_windows.cc.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace llorch::os {

// Threads worth running: the least of cgroup quota (rounded down, at least 1) and the cores of the
// cpuset: one thread for each, and fast cores only where some are slow.
int usable_cpus();
// Bytes that can be taken without swapping: free memory, or what the cgroup has left if less.
uint64_t free_memory_bytes();
uint64_t resident_bytes();

bool stderr_is_terminal();
// Writes all of it, past any buffer, however long that takes; gives the bytes written, fewer if it
// failed.
size_t write_stdout(std::string_view bytes);
// A closed socket or pipe shall be an error code, not a signal; as many descriptors as allowed.
void prepare_process();
void name_this_thread(const char* name);
std::tm local_time(std::time_t at);  // in the time zone of this machine; any thread
// Asks the kernel to back this memory by huge pages; a hint, never an error.
void prefer_huge_pages(std::span<std::byte> memory);

// Calls `on_stop(n)` for the n-th SIGTERM or SIGINT (Windows: Ctrl+C, Ctrl+Break, close), on a
// thread of its own. One object at a time.
class StopSignals {
 public:
  explicit StopSignals(std::function<void(int)> on_stop);
  ~StopSignals();

 private:
  std::thread thread_;
};

// Numeric addresses of `host` (a literal, a name of /etc/hosts, or by DNS), within `timeout`.
// Blocks; any thread. Works in a static binary. Throws Error{kInternal} naming host and reason.
std::vector<std::string> resolve_host(const std::string& host, std::chrono::milliseconds timeout);

// A read-only view of a whole file. Throws Error{kCorruptFile} naming path and reason.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  std::span<const std::byte> bytes() const { return bytes_; }
  // Tells the kernel that these pages will be read soon; it begins to, nobody waits.
  void read_ahead(std::span<const std::byte> part) const;
  // Tells the kernel that these pages will not be read again (weights are packed by then).
  void drop(std::span<const std::byte> part) const;

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace llorch::os
