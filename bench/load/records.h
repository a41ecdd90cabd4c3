// What a run leaves behind. Times are seconds since its start, by the steady clock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llorch::bench {

enum class Outcome {
  kOk,
  kCancelled,     // we asked for it, and the stream said so
  kDisconnected,  // we closed the socket
  kRefused,       // 429 or 503
  kFailed,        // another status, an error event, or no connection
  kLost           // no answer, a stream without its last event, or nothing within --timeout
};
constexpr int kOutcomes = 6;
const char* name(Outcome outcome);

struct Record {
  double scheduled = 0;  // latencies count from here, however late we were
  double sent = 0, first = 0, last = 0, ended = 0;  // first and last token; 0 if there was none
  int turn = 0;
  int prompt_tokens = 0, cached_tokens = 0, tokens_out = 0;  // as the server counts them
  int events = 0;                                            // with text, as we do
  Outcome outcome = Outcome::kLost;
  std::string code, detail;  // of what was not ok
  bool retry_after = false;  // the refusal said when to come again
};

// From one token of a stream to its next.
struct Gap {
  float at = 0, seconds = 0;
  uint32_t request = 0;
};

// GET of one path beside the load.
struct PathSample {
  float at = 0, seconds = 0;  // from when it was due; negative if it failed
};

// The machine and the worker during about a second.
struct MachineSample {
  double at = 0;
  float late_p99_ms = 0, late_max_ms = 0;  // how late a timer of 2 ms wakes
  float spin_rate = 0;                     // million steps of a fixed loop in a second of one core
  float busy_share = 0, steal_share = 0;   // of all cores
  float worker_cores = 0, own_cores = 0;   // processor seconds per second
  float worker_mb = 0;                     // resident
};

struct RunResult {
  double monotonic_start = 0;  // the steady clock's reading at 0
  double seconds = 0;
  double longest_late_s = 0;  // the generator behind its own schedule
  std::vector<Record> records;
  std::vector<Gap> gaps;
  std::vector<PathSample> path;
  std::vector<MachineSample> machine;
};

}  // namespace llorch::bench
