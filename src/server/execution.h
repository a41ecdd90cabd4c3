// One admitted request on the server's side: its events as bytes, and its line in the log. Knows no
// sockets.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "engine/stream.h"
#include "server/event_writer.h"

namespace llorch {

// Belongs to one I/O thread. Logs `execute_start` when made and `execute_end` when destroyed; the
// reader leaves by then.
class Execution {
 public:
  Execution(std::shared_ptr<Reader> reader, const Request& request,
            std::unique_ptr<EventWriter> writer, std::chrono::milliseconds keepalive);
  ~Execution();
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;

  // The bytes of the events that wait, up to about 64 KiB; empty if none does.
  std::string take();
  bool ended() const { return ended_; }  // the terminal event was taken
  // As EventWriter's.
  bool streams() const { return writer_->streams(); }
  int status() const { return writer_->status(); }
  void leave() { reader_->leave(); }                                  // see Reader
  std::chrono::milliseconds keepalive() const { return keepalive_; }  // 0: none

 private:
  using Clock = std::chrono::steady_clock;
  void write_waiting(std::string& bytes);
  void note(const Event& event);
  int64_t ms_until(Clock::time_point then) const;

  const std::shared_ptr<Reader> reader_;
  std::unique_ptr<EventWriter> writer_;
  std::string job_id_, correlation_id_;
  std::chrono::milliseconds keepalive_;
  Clock::time_point submitted_ = Clock::now(), started_, first_token_;
  std::string outcome_ = "CANCELLED";
  int32_t prompt_tokens_, cached_tokens_ = 0, tokens_out_ = 0;
  bool ended_ = false, out_of_memory_ = false;
};

}  // namespace llorch
