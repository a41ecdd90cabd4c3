// Ends the process when the engine makes no progress: a device that hangs never comes back, and a
// pool manager can only start a new worker once this one is gone.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/engine.h"

namespace llorch {

class StallGuard {
 public:
  // Watches `engine` from now on, its warm-up included.
  explicit StallGuard(Engine& engine);
  ~StallGuard();

  // What stalls before is a failed start (exit 11); later, every stream ends with an error event,
  // the log tells what the engine was doing, and the process exits with 15.
  void set_ready() { ready_ = true; }

 private:
  void run();
  [[noreturn]] void give_up();

  Engine& engine_;
  std::atomic<bool> ready_{false};
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace llorch
