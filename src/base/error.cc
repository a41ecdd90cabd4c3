#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace llorch {

OutOfMemory::OutOfMemory(const std::string& what, uint64_t needed_bytes, uint64_t free_bytes)
    : Error(ErrorCode::kOutOfMemory,
            what + ": needs " + std::to_string(needed_bytes) + " bytes, " +
                std::to_string(free_bytes) + " are free, " +
                std::to_string(needed_bytes > free_bytes ? needed_bytes - free_bytes : 0) +
                " short"),
      needed_bytes_(needed_bytes),
      free_bytes_(free_bytes) {}

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBadArgument:
      return 2;
    case ErrorCode::kCorruptFile:
    case ErrorCode::kUnsupported:
      return 10;
    case ErrorCode::kDevice:
      return 11;
    case ErrorCode::kOutOfMemory:
      return 12;
    case ErrorCode::kPortInUse:
      return 13;
    case ErrorCode::kCallbackRefused:
      return 14;
    default:
      return 1;
  }
}

const char* name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBadRequest:
      return "bad_request";
    case ErrorCode::kOverloaded:
      return "overloaded";
    case ErrorCode::kConflict:
      return "conflict";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kBadArgument:
      return "bad_argument";
    case ErrorCode::kCorruptFile:
      return "corrupt_file";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kDevice:
      return "device";
    case ErrorCode::kOutOfMemory:
      return "out_of_memory";
    case ErrorCode::kPortInUse:
      return "port_in_use";
    case ErrorCode::kCallbackRefused:
      return "callback_refused";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace llorch
