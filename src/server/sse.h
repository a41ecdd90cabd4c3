// One request's events as the bytes of its event stream (contract, section 5). Knows no sockets.
#pragma once

#include <cstdint>
#include <string>

#include "engine/request.h"

namespace llorch {

// What the events of one stream tell beside what the engine says.
struct StreamFacts {
  std::string job_id, model;
  uint64_t seed = 0;
  uint64_t weight_bytes = 0;  // "vram_bytes"
};

// Belongs to one stream: it numbers the token events.
class EventWriter {
 public:
  explicit EventWriter(StreamFacts facts) : facts_(std::move(facts)) {}

  // Exactly `data: <one-line JSON>\n\n`.
  std::string write(const Event& event);
  uint32_t token_events() const { return index_; }

 private:
  std::string json(const StartedEvent& e) const;
  std::string json(const TokenEvent& e);
  std::string json(const MetricsEvent& e) const;
  std::string json(const EndEvent& e) const;
  std::string json(const FailedEvent& e) const;

  StreamFacts facts_;
  uint32_t index_ = 0;
};

bool is_terminal(const Event& event);
const char* name(StopReason reason);  // "MAX_TOKENS"

}  // namespace llorch
