// One reader of an admitted request on the server's side: its events as bytes. Knows no sockets.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "engine/stream.h"
#include "server/event_writer.h"

namespace llorch {

// Belongs to one I/O thread; the reader leaves with it. A reader that attached to a job instead of
// beginning it logs an `execute_end` of its own then.
class Execution {
 public:
  struct Options {
    bool event_ids = false;  // an `id:` line before each event that is the job's
    std::chrono::milliseconds keepalive{0};
  };

  // Of `request` only the ids are read.
  Execution(std::shared_ptr<Reader> reader, const Request& request,
            std::unique_ptr<EventWriter> writer, const Options& options);
  ~Execution();
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;

  // The bytes of the events that wait, up to about 64 KiB; empty if none does.
  std::string take();
  bool ended() const { return ended_; }  // there will be no event any more
  // As EventWriter's.
  bool streams() const { return writer_->streams(); }
  int status() const { return writer_->status(); }
  void leave() { reader_->leave(); }                                          // see Reader
  std::chrono::milliseconds keepalive() const { return options_.keepalive; }  // 0: none

 private:
  using Clock = std::chrono::steady_clock;
  void write_waiting(std::string& bytes);
  void note(const Event& event);

  const std::shared_ptr<Reader> reader_;
  const std::unique_ptr<EventWriter> writer_;
  const Options options_;
  const std::string job_id_, correlation_id_;
  const Clock::time_point attached_ = Clock::now();
  const uint64_t from_;  // the number of its first event
  const char* outcome_ = "CANCELLED";
  bool ended_, out_of_memory_ = false;
};

}  // namespace llorch
