// What one request's events look like to its client: an interface with one implementation for each
// form of answer. Knows no sockets.
#pragma once

#include <string>

#include "engine/request.h"

namespace llorch {

// Belongs to one request; it is shown all events, in order.
class EventWriter {
 public:
  virtual ~EventWriter() = default;

  // The bytes that tell this event; empty if it is not told. A terminal event has some.
  virtual std::string write(const Event& event) = 0;
  // True if the bytes leave as they come, as an event stream; else all of them together are the
  // body of one JSON answer, with status() once the terminal event has been written.
  virtual bool streams() const = 0;
  virtual int status() const { return 200; }
};

const char* name(StopReason reason);  // "MAX_TOKENS"

inline constexpr int kEnergyDigits = 4;  // significant ones

}  // namespace llorch
