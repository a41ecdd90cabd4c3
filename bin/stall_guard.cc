#include "stall_guard.h"

#include <chrono>
#include <string>

#include "base/log.h"
#include "base/os.h"
#include "exits.h"

namespace llorch {
namespace {

constexpr std::chrono::milliseconds kCheck{250};
// For readers to get their last event, and for a probe to see /livez fail.
constexpr std::chrono::seconds kLastWords{1};

// "job-1 decode 20/21 tokens 2 blocks; job-2 prefill 512/4000 tokens 32 blocks"
std::string described(const std::vector<StepState::Part>& sequences) {
  std::string text;
  for (const StepState::Part& s : sequences) {
    if (!text.empty()) text += "; ";
    text += s.job_id + (s.decoding ? " decode " : " prefill ") + std::to_string(s.computed) + "/" +
            std::to_string(s.known) + " tokens " + std::to_string(s.blocks) + " blocks";
  }
  return text;
}

}  // namespace

StallGuard::StallGuard(Engine& engine) : engine_(engine), thread_([this] { run(); }) {}

StallGuard::~StallGuard() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_one();
  thread_.join();
}

void StallGuard::run() {
  os::name_this_thread("stall_guard");
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, kCheck, [&] { return stopping_; })) {
    if (engine_.fail_stalled()) give_up();
  }
}

void StallGuard::give_up() {
  const StepState step = engine_.last_step();
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - step.began);
  if (!ready_) {
    const ErrorCode code = ErrorCode::kDevice;
    exit_now(fail(name(code),
                  "[warm_up] the device hangs: step " + std::to_string(step.number) +
                      " has not finished for " + std::to_string(age.count()) + " ms",
                  exit_status(code)));
  }
  log(Level::kError, "error",
      {{"code", "engine_stalled"},
       {"message", "no step has finished for too long"},
       {"exit_code", kExitEngineFailed},
       {"step", step.number},
       {"step_age_ms", age.count()},
       {"running", step.running},
       {"waiting", step.waiting},
       {"blocks_used", step.blocks_used},
       {"blocks_total", step.blocks_total},
       {"kv_usage", step.kv_usage},
       {"sequences", described(step.sequences)}});
  std::this_thread::sleep_for(kLastWords);
  exit_now(kExitEngineFailed);
}

}  // namespace llorch
