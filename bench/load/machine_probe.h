// Watches the machine while a load runs, so that its own noise is seen beside the figures.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "load/records.h"

namespace llorch::bench {

// A thread of its own; takes about half a percent of a core.
class MachineProbe {
 public:
  using Clock = std::chrono::steady_clock;

  // `pid`: of the worker, 0 if it is not known or elsewhere.
  MachineProbe(Clock::time_point start, int pid);
  ~MachineProbe();

  std::vector<MachineSample> stop();

 private:
  void watch();

  const Clock::time_point start_;
  const int pid_;
  std::atomic<bool> stopping_{false};
  std::vector<MachineSample> samples_;
  std::thread thread_;
};

}  // namespace llorch::bench
