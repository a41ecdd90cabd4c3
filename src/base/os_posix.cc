// Linux and macOS.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "base/cgroup.h"
#include "base/cpu_cores.h"
#include "base/error.h"
#include "base/os.h"

#ifdef __linux__
#include <ares.h>
#include <sched.h>
#include <sys/select.h>
#else
#include <sys/sysctl.h>
#endif

namespace llorch::os {
namespace {

#ifdef __linux__

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

int cores_allowed() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    return static_cast<int>(std::thread::hardware_concurrency());
  }
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return compute_cores(cpus);
}

uint64_t proc_kilobytes(const char* file, const std::string& key) {
  std::istringstream lines(read_text(file));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(key + ":", 0) == 0) {
      return std::strtoull(line.c_str() + key.size() + 1, nullptr, 10) * 1024;
    }
  }
  return 0;
}

#endif

[[noreturn]] void file_error(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::kCorruptFile, path + ": " + reason);
}

}  // namespace

#ifdef __linux__

int usable_cpus() {
  const double quota = cgroup_cpus();
  const int cores = std::max(1, cores_allowed());
  return quota < cores ? std::max(1, static_cast<int>(quota)) : cores;
}

uint64_t free_memory_bytes() {
  const auto available = static_cast<double>(proc_kilobytes("/proc/meminfo", "MemAvailable"));
  return static_cast<uint64_t>(std::min(available, cgroup_free_memory()));
}

uint64_t resident_bytes() { return proc_kilobytes("/proc/self/status", "VmRSS"); }

// c-ares: the C library's own resolver wants its shared objects beside a static binary.
std::vector<std::string> resolve_host(const std::string& host, std::chrono::milliseconds timeout) {
  struct Answer {
    bool done = false;
    int status = ARES_ENODATA;
    std::vector<std::string> addresses;
  } answer;
  ares_channel channel = nullptr;
  ares_options options{};
  options.timeout = static_cast<int>(std::max<int64_t>(timeout.count() / 3, 100));
  options.tries = 2;
  int status = ares_library_init(ARES_LIB_INIT_ALL);
  if (status == ARES_SUCCESS) {
    status = ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  }
  if (status != ARES_SUCCESS) {
    throw Error(ErrorCode::kInternal, "[resolve] " + host + ": " + ares_strerror(status));
  }
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  ares_getaddrinfo(
      channel, host.c_str(), nullptr, &hints,
      [](void* out, int result, int, ares_addrinfo* info) {
        auto& a = *static_cast<Answer*>(out);
        a.done = true;
        a.status = result;
        for (auto* node = info ? info->nodes : nullptr; node; node = node->ai_next) {
          char text[INET6_ADDRSTRLEN];
          const void* address =
              node->ai_family == AF_INET
                  ? static_cast<const void*>(
                        &reinterpret_cast<const sockaddr_in*>(node->ai_addr)->sin_addr)
                  : &reinterpret_cast<const sockaddr_in6*>(node->ai_addr)->sin6_addr;
          if (inet_ntop(node->ai_family, address, text, sizeof text)) a.addresses.push_back(text);
        }
        if (info) ares_freeaddrinfo(info);
      },
      &answer);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!answer.done) {
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) break;
    fd_set readable, writable;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    const int count = ares_fds(channel, &readable, &writable);
    timeval longest{static_cast<time_t>(left.count() / 1'000'000),
                    static_cast<suseconds_t>(left.count() % 1'000'000)};
    timeval next{};
    select(count, &readable, &writable, nullptr, ares_timeout(channel, &longest, &next));
    ares_process(channel, &readable, &writable);
  }
  const bool timed_out = !answer.done;
  ares_destroy(channel);  // calls back, with ARES_EDESTRUCTION, what is still open
  ares_library_cleanup();
  if (answer.addresses.empty()) {
    throw Error(ErrorCode::kInternal, "[resolve] " + host + ": " +
                                          (timed_out ? "timed out" : ares_strerror(answer.status)));
  }
  return answer.addresses;
}

#else

int usable_cpus() {
  int cores = 0;
  size_t size = sizeof cores;
  if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) != 0 &&
      sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) != 0) {
    cores = static_cast<int>(std::thread::hardware_concurrency());
  }
  return std::max(1, cores);
}

uint64_t free_memory_bytes() {
  uint64_t total = 0;
  size_t size = sizeof total;
  sysctlbyname("hw.memsize", &total, &size, nullptr, 0);
  return total > resident_bytes() ? total - resident_bytes() : 0;
}

uint64_t resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss);
}

std::vector<std::string> resolve_host(const std::string& host, std::chrono::milliseconds) {
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int status = getaddrinfo(host.c_str(), nullptr, &hints, &list); status != 0) {
    throw Error(ErrorCode::kInternal, "[resolve] " + host + ": " + gai_strerror(status));
  }
  std::vector<std::string> addresses;
  for (addrinfo* node = list; node; node = node->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(node->ai_addr, node->ai_addrlen, text, sizeof text, nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      addresses.push_back(text);
    }
  }
  freeaddrinfo(list);
  return addresses;
}

#endif

bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

size_t write_stdout(std::string_view bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = write(STDOUT_FILENO, bytes.data() + done, bytes.size() - done);
    if (count >= 0) {
      done += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {  // who shares it has made it non-blocking
      pollfd out{STDOUT_FILENO, POLLOUT, 0};
      poll(&out, 1, -1);
    } else if (errno != EINTR) {
      break;
    }
  }
  return done;
}

void prepare_process() {
  signal(SIGPIPE, SIG_IGN);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
#ifdef __APPLE__
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, OPEN_MAX);
#endif
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

std::tm local_time(std::time_t at) {
  std::tm time{};
  localtime_r(&at, &time);
  return time;
}

void name_this_thread(const char* name) {
#ifdef __linux__
  pthread_setname_np(pthread_self(), name);
#else
  pthread_setname_np(name);
#endif
}

void prefer_huge_pages(std::span<std::byte> memory) {
#ifdef __linux__
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory.data()) + page - 1) & ~(page - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(memory.data() + memory.size()) & ~(page - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory;
#endif
}

namespace {
// A handler may do little more than write: it passes the signal on through this pipe.
int signal_pipe[2] = {-1, -1};
void pass_on(int) {
  const int error = errno;
  const char stop = 's';
  [[maybe_unused]] const ssize_t written = write(signal_pipe[1], &stop, 1);
  errno = error;
}
}  // namespace

StopSignals::StopSignals(std::function<void(int)> on_stop) {
  if (pipe(signal_pipe) != 0) throw Error(ErrorCode::kInternal, "[signals] no pipe to be had");
  for (const int end : signal_pipe) fcntl(end, F_SETFD, FD_CLOEXEC);
  thread_ = std::thread([on_stop = std::move(on_stop)] {
    name_this_thread("signals");
    int count = 0;
    for (char byte = 0;;) {
      const ssize_t got = read(signal_pipe[0], &byte, 1);
      if (got < 0 && errno == EINTR) continue;
      if (got != 1 || byte != 's') return;
      on_stop(++count);
    }
  });
  struct sigaction action {};
  action.sa_handler = pass_on;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

StopSignals::~StopSignals() {
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  const char quit = 'q';
  [[maybe_unused]] const ssize_t written = write(signal_pipe[1], &quit, 1);
  thread_.join();
  for (int& end : signal_pipe) close(std::exchange(end, -1));
}

MappedFile::MappedFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) file_error(path, std::strerror(errno));
  struct stat info {};
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(file);
    file_error(path, "is not a regular file");
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size > 0) {
    void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    const int error = errno;
    close(file);
    if (data == MAP_FAILED) file_error(path, std::strerror(error));
    bytes_ = {static_cast<const std::byte*>(data), size};
  } else {
    close(file);
  }
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::read_ahead(std::span<const std::byte> part) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(part.data()) & ~(page - 1);
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size());
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

void MappedFile::drop(std::span<const std::byte> part) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) & ~(page - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(part.data() + part.size()) & ~(page - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace llorch::os
