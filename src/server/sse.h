// The events of POST /execute as the bytes of its event stream (contract, section 5).
#pragma once

#include <cstdint>
#include <string>

#include "server/event_writer.h"

namespace llorch {

// What the events of one stream tell beside what the engine says.
struct StreamFacts {
  std::string job_id, model;
  uint64_t weight_bytes = 0;  // "vram_bytes"
};

class SseWriter : public EventWriter {
 public:
  explicit SseWriter(StreamFacts facts) : facts_(std::move(facts)) {}

  // Exactly `data: <one-line JSON>\n\n`.
  std::string write(const Event& event) override;
  bool streams() const override { return true; }

 private:
  std::string json(const StartedEvent& e) const;
  std::string json(const TokenEvent& e) const;
  std::string json(const MetricsEvent& e) const;
  std::string json(const EndEvent& e) const;
  std::string json(const FailedEvent& e) const;

  const StreamFacts facts_;
};

}  // namespace llorch
