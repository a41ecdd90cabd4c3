#include "server/event_writer.h"

namespace llorch {

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
