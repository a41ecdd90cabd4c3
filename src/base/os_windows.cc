// Windows 10 and later. Winsock must come before windows.h.
// clang-format off
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <psapi.h>
// clang-format on
#include <io.h>
#include <stdio.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/os.h"

namespace llorch::os {
namespace {

[[noreturn]] void file_error(const std::string& path) {
  throw Error(ErrorCode::kCorruptFile,
              path + ": " + std::system_category().message(static_cast<int>(GetLastError())));
}

std::wstring widen(const std::string& utf8) {
  const int size = static_cast<int>(utf8.size());
  std::wstring wide(
      static_cast<size_t>(MultiByteToWideChar(CP_UTF8, 0, utf8.data(), size, nullptr, 0)), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, utf8.data(), size, wide.data(), static_cast<int>(wide.size()));
  return wide;
}

}  // namespace

int usable_cpus() {
  DWORD_PTR allowed = 0, all = 0;
  GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all);
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> entries(
      bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION) + 1);
  int cores = 0;
  if (GetLogicalProcessorInformation(entries.data(), &bytes)) {
    entries.resize(bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
    cores = static_cast<int>(std::count_if(entries.begin(), entries.end(), [&](const auto& entry) {
      return entry.Relationship == RelationProcessorCore && (entry.ProcessorMask & allowed) != 0;
    }));
  }
  return std::max(1, cores > 0 ? cores : std::popcount(allowed));
}

uint64_t free_memory_bytes() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? status.ullAvailPhys : 0;
}

uint64_t resident_bytes() {
  PROCESS_MEMORY_COUNTERS counters{};
  return GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)
             ? counters.WorkingSetSize
             : 0;
}

bool stderr_is_terminal() { return _isatty(_fileno(stderr)) != 0; }

size_t write_stdout(std::string_view bytes) {
  const HANDLE out = GetStdHandle(STD_OUTPUT_HANDLE);
  size_t done = 0;
  DWORD count = 0;
  while (done < bytes.size() &&
         WriteFile(out, bytes.data() + done, static_cast<DWORD>(bytes.size() - done), &count,
                   nullptr)) {
    done += count;
  }
  return done;
}

void prepare_process() {}

std::tm local_time(std::time_t at) {
  std::tm time{};
  localtime_s(&time, &at);
  return time;
}

void name_this_thread(const char* name) {
  // mingw-w64 10 does not declare SetThreadDescription, so it is looked up.
  using SetDescription = HRESULT(WINAPI*)(HANDLE, PCWSTR);
  const auto set_description = reinterpret_cast<SetDescription>(reinterpret_cast<void*>(
      GetProcAddress(GetModuleHandleW(L"kernel32.dll"), "SetThreadDescription")));
  if (set_description) set_description(GetCurrentThread(), widen(name).c_str());
}

// Large pages need a privilege that a service seldom has.
void prefer_huge_pages(std::span<std::byte>) {}

std::vector<std::string> resolve_host(const std::string& host, std::chrono::milliseconds) {
  WSADATA data;
  WSAStartup(MAKEWORD(2, 2), &data);
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int status = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  std::vector<std::string> addresses;
  for (addrinfo* node = status == 0 ? list : nullptr; node; node = node->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(node->ai_addr, static_cast<socklen_t>(node->ai_addrlen), text, sizeof text,
                    nullptr, 0, NI_NUMERICHOST) == 0) {
      addresses.push_back(text);
    }
  }
  if (list) freeaddrinfo(list);
  WSACleanup();
  if (status != 0) {
    throw Error(ErrorCode::kInternal,
                "[resolve] " + host + ": " + std::system_category().message(status));
  }
  return addresses;
}

namespace {
std::function<void(int)> stop_handler;
std::atomic<int> stop_count{0};
BOOL WINAPI pass_on(DWORD) {
  stop_handler(++stop_count);  // Windows calls this on a thread of its own
  return TRUE;
}
}  // namespace

StopSignals::StopSignals(std::function<void(int)> on_stop) {
  stop_handler = std::move(on_stop);
  SetConsoleCtrlHandler(pass_on, TRUE);
}

StopSignals::~StopSignals() { SetConsoleCtrlHandler(pass_on, FALSE); }

MappedFile::MappedFile(const std::string& path) {
  const HANDLE file = CreateFileW(widen(path).c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr,
                                  OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) file_error(path);
  LARGE_INTEGER size{};
  if (!GetFileSizeEx(file, &size)) {
    CloseHandle(file);
    file_error(path);
  }
  if (size.QuadPart > 0) {
    const HANDLE mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
    CloseHandle(file);
    if (mapping == nullptr) file_error(path);
    const void* data = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    CloseHandle(mapping);  // the view keeps it
    if (data == nullptr) file_error(path);
    bytes_ = {static_cast<const std::byte*>(data), static_cast<size_t>(size.QuadPart)};
  } else {
    CloseHandle(file);
  }
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) UnmapViewOfFile(bytes_.data());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::read_ahead(std::span<const std::byte>) const {}

void MappedFile::drop(std::span<const std::byte>) const {}

}  // namespace llorch::os
