// Tells the pool manager that this worker is ready (contract, section 4). Knows no HTTP server.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace llorch {

struct ReadyMessage {
  std::string worker_id;
  uint64_t vram_bytes = 0;
  std::string uri;
  std::string model_ref, backend;
  uint64_t memory_bytes = 0;
  std::vector<std::string> capabilities;
};
struct CallbackTiming {
  std::chrono::milliseconds attempt{5'000}, first_pause{200}, total{30'000};
};

// Checks the form of --callback-url. Throws Error{kBadArgument} for anything but http://host[:port]...
void check_callback_url(const std::string& url);

// The body, keys in the contract's order.
std::string to_json(const ReadyMessage& message);

// POSTs the message; network faults and 5xx are retried. Returns false, having sent nothing, if the
// url contains localhost:9999 or is empty, or once `stop` is set. Blocks; any thread. Throws Error{kCallbackRefused} naming
// url and last answer when it has failed for good.
bool send_ready(const std::string& url, const ReadyMessage& message, const CallbackTiming& timing,
                const std::atomic<bool>& stop);

}  // namespace llorch
