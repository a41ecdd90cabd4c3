// How the process ends when it does not simply return from main().
#pragma once

#include <string>

#include "base/error.h"

namespace llorch {

constexpr int kExitEngineFailed = 15;

// Leaves the one line of a failed start on stdout and stderr. Gives `status`.
int fail(const char* code, const std::string& message, int status,
         const OutOfMemory* memory = nullptr);

// Ends the process now, whatever its threads do; the log leaves first.
[[noreturn]] void exit_now(int status);

}  // namespace llorch
