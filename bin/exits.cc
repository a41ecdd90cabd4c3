#include "exits.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"

namespace llorch {

int fail(const char* code, const std::string& message, int status, const OutOfMemory* memory) {
  const uint64_t needed = memory ? memory->needed_bytes() : 0;
  const uint64_t free = memory ? memory->free_bytes() : 0;
  const std::string line =
      memory ? log_line(Level::kError, "error",
                        {{"code", code},
                         {"message", message},
                         {"exit_code", status},
                         {"needed_bytes", needed},
                         {"free_bytes", free},
                         {"short_bytes", needed > free ? needed - free : 0}})
             : log_line(Level::kError, "error",
                        {{"code", code}, {"message", message}, {"exit_code", status}});
  log_ready_line(line);
  std::fprintf(stderr, "%s\n", line.c_str());
  return status;
}

void exit_now(int status) {
  flush_log(std::chrono::milliseconds(500));
  std::_Exit(status);
}

}  // namespace llorch
