// The one thread that turns requests into tokens: intake -> schedule -> submit -> collect -> emit.
// Knows no sockets and no JSON.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/metrics.h"
#include "engine/request.h"
#include "engine/step_cost.h"
#include "engine/step_state.h"
#include "engine/stream.h"
#include "model/model.h"
#include "ops/backend.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

struct EngineOptions {
  int context = 0;                             // tokens, prompt and output together
  int max_batch = 32;                          // sequences per step
  int max_queue = 256;                         // requests beyond those the batch has room for
  int step_tokens = kBackendInfo.step_tokens;  // token budget of one step; raised to max_batch
  // 2: the next step may be submitted while one runs, no more than the backend takes; changes no
  // answer.
  int steps_in_flight = kBackendInfo.steps_in_flight;
  bool speculate = true;   // draft where it pays; changes no answer
  StepBounds bounds = {};  // in time, as far as it can be told
  int block_tokens = 16;
  DType kv_type = DType::kF32;
  // None: what max_batch full contexts need, but at most kv_percent of what is free.
  std::optional<uint64_t> kv_bytes = std::nullopt;
  std::optional<uint64_t> free_bytes = std::nullopt;  // none: the device is asked
  int kv_percent = kBackendInfo.kv_percent;
  std::chrono::milliseconds stall_timeout{60'000};
  size_t stream_events = 1024;  // how far a reader may fall behind
  // How long an answer that ended well is kept for repeats, if all of them fit the bytes.
  std::chrono::milliseconds result_retention{300'000};
  size_t retained_bytes = size_t{64} << 20;
  std::chrono::milliseconds resume_grace{60'000};  // of a request that is resumable
  std::vector<int32_t> eos_ids = {};               // beside the model's own, in any order
  // Read by any thread.
  std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
};

// Figures of this moment. Read without any lock, so that health never waits for a step.
struct EngineSnapshot {
  int running = 0, waiting = 0;
  int32_t blocks_used = 0, blocks_total = 0;  // of all kv groups; used: held by a sequence
  float kv_usage = 0;                         // of the fullest kv group, 0 to 1
  uint64_t steps = 0;
  uint64_t steps_ahead = 0;  // that were submitted while the one before them ran
  uint64_t preemptions = 0;
  // Of the sequences that have begun: their tokens, and those that the prefix cache had computed.
  uint64_t prefix_query_tokens = 0, prefix_hit_tokens = 0;
  uint64_t tokens_in = 0, tokens_out = 0;
  bool stalled = false;  // work exists and no step ended for max(stall_timeout, 20 x longest step)
  bool failed = false;  // the device is lost: every stream has ended, the process must exit with 15
};

class Engine {
 public:
  // Sizes scratch and kv blocks on `backend`; all three must outlive the engine. Throws OutOfMemory
  // if not even one full context fits. The thread that makes backend and engine is the engine
  // thread: it alone calls the members marked so (a device may bind its streams to a thread).
  Engine(Backend& backend, const Model& model, const Tokenizer& tokenizer,
         const EngineOptions& options);
  ~Engine();

  // [engine thread] Lets the device record the steps it will replay, so that the backend takes no
  // other Forward from now on; runs two prompts and a few tokens, then forgets them but for what
  // they cost.
  // Before the first submit. Throws what a step throws.
  void warm_up();
  // [engine thread] Serves until stop(); what is left then ends with CANCELLED. Throws what a step
  // throws, once every open stream has ended with INFERENCE_FAILED and the snapshot says failed.
  void run();
  // [engine thread] One step: intake, cancels and timeouts, schedule, submit, collect, emit; with
  // two in flight the next is submitted before this one is collected, where that can be. False if
  // no request is open. run() is this in a loop; tests call it one at a time.
  bool step();

  // Queues a request and gives a reader of its events; `wake` is as Stream::attach takes it. Or
  // attaches to the job of that id, if its fingerprint is the same: while it runs, and for the
  // retention after it ended well, also when the queue is full or draining. Throws
  // Error{kBadRequest} if prompt and max_tokens are not what Request says, or its last_event_id has
  // not been sent; kNotFound if there is no job to resume; kConflict if the job id is that of
  // another request that is queued or running; kOverloaded if the queue is full; kUnavailable when
  // draining, stalled, failed or stopped. Any thread.
  std::shared_ptr<Reader> submit(Request request, std::function<void()> wake);
  // True if the job is queued, running, or ended within the retention; its sequence is gone before
  // the next step. Any thread.
  bool cancel(const std::string& job_id);
  // If a step hangs, all open streams end with INFERENCE_FAILED now, and their sequences leave
  // should the step ever end; from then on the snapshot says stalled. True if so. To be called now
  // and then. Any thread but the engine's.
  bool fail_stalled();
  // Ends all open streams for `cause` though a step may be under way. Any thread.
  void end_streams(CancelCause cause);
  StepState last_step() const;  // the one that runs, or ran last; any thread
  // Frees the answers whose retention has passed. To be called now and then. Any thread.
  void expire();

  EngineSnapshot snapshot() const;       // any thread, lock-free
  const EngineMetrics& metrics() const;  // any thread, lock-free
  int32_t block_tokens() const;          // of one kv block
  int32_t group_blocks() const;          // kv blocks of the largest group
  uint64_t kv_bytes() const;             // of the whole pool
  int context() const;                   // tokens
  int32_t vocab() const;                 // ids of a prompt are below it
  // What the device's meter shows, if it has one: idle times too. Any thread.
  std::optional<double> energy_j() const;

  // New requests are refused from now on. Any thread.
  void start_drain();
  // True once no request is queued or running and all streams have their terminal event, false at
  // the deadline. Any thread but the engine's.
  bool wait_drained(std::chrono::steady_clock::time_point deadline);
  // Makes run() return after the step it is in. Any thread, idempotent.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llorch
