#include "server/event_writer.h"

namespace llorch {

bool is_terminal(const Event& event) {
  return std::holds_alternative<EndEvent>(event) || std::holds_alternative<FailedEvent>(event);
}

const char* name(StopReason reason) {
  switch (reason) {
    case StopReason::kMaxTokens:
      return "MAX_TOKENS";
    case StopReason::kEos:
      return "EOS";
    case StopReason::kStopSequence:
      return "STOP_SEQUENCE";
  }
  return "";
}

}  // namespace llorch
