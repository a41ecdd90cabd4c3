// Tells the pool manager that this worker is ready (contract, section 4). Knows no HTTP server.
#pragma once

#include <chrono>
#include <cstdint>
#include <stop_token>
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

struct CallbackUrl {
  std::string host, port, target;  // host without brackets; target with path and query
  std::string authority;           // for the Host header
};
// Throws Error{kBadArgument} for anything but http://host[:port][/...].
CallbackUrl parse_callback_url(const std::string& url);

// The body, keys in the contract's order.
std::string to_json(const ReadyMessage& message);

// POSTs the message to the exact `url`; network faults and 5xx are retried after first_pause, twice
// that, ... until `total` has passed. False, with nothing sent, if the url is empty or contains
// "localhost:9999", or once `stop` is asked for. Blocks; any thread. Throws
// Error{kCallbackRefused} naming url and the last answer.
bool send_ready(const std::string& url, const ReadyMessage& message, const CallbackTiming& timing,
                std::stop_token stop);

}  // namespace llorch
