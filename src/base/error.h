// The one exception type, its codes, and what each code means to a shell. Knows nothing of HTTP.
#pragma once

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace llorch {

enum class ErrorCode {
  kBadRequest,       // a client's fault
  kOverloaded,       // the waiting queue is full
  kConflict,         // the job id is taken by a running job
  kNotFound,         // what a client names is not there
  kUnavailable,      // draining or stalled
  kBadArgument,      // command line, environment or config file
  kCorruptFile,      // a model file is missing, damaged or contradicts itself
  kUnsupported,      // a model file asks for what this worker has not got
  kDevice,           // the device cannot be used
  kOutOfMemory,      // host or device memory
  kPortInUse,        // the address cannot be bound
  kCallbackRefused,  // the ready callback failed for good
  kInternal,         // anything else: our own fault
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// kOutOfMemory with its figures, in bytes, for the line that a failed start prints.
class OutOfMemory : public Error {
 public:
  OutOfMemory(const std::string& what, uint64_t needed_bytes, uint64_t free_bytes);
  uint64_t needed_bytes() const { return needed_bytes_; }
  uint64_t free_bytes() const { return free_bytes_; }

 private:
  uint64_t needed_bytes_, free_bytes_;
};

// kOverloaded, with the time after which another try may do better.
class Overloaded : public Error {
 public:
  Overloaded(const std::string& text, std::chrono::milliseconds retry_after)
      : Error(ErrorCode::kOverloaded, text), retry_after_(retry_after) {}
  std::chrono::milliseconds retry_after() const { return retry_after_; }

 private:
  std::chrono::milliseconds retry_after_;
};

// Exit status of a worker that fails to start with `code` (contract, section 2).
int exit_status(ErrorCode code);
// Lower-case name for log lines: "corrupt_file".
const char* name(ErrorCode code);

// Ends the process with file, line and text: for our own bugs only, never for input.
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
#define CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::llorch::check_failed(__FILE__, __LINE__, #condition))

}  // namespace llorch
