// Asks for one path at a fixed rate while a load runs, as a monitor would.
#pragma once

#include <memory>
#include <vector>

#include "load/client.h"

namespace llorch::bench {

// A thread and a connection of its own, so that the load's own work does not count. A question that
// is due while the last is unanswered waits, and its time counts from when it was due.
class PathProbe {
 public:
  PathProbe(const Options& options, const RunClock& clock);
  ~PathProbe();

  std::vector<PathSample> stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llorch::bench
