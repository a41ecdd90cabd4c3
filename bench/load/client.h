// Asks a server over HTTP, and follows the stream of its answer. Included by the .cc files that
// bring Asio along.
#pragma once

#include <utility>  // Asio 1.74 needs std::exchange, but does not include it

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <string>

#include "load/options.h"
#include "load/records.h"

namespace llorch::bench {

template <class T>
using Task = boost::asio::awaitable<T>;

// Of a run: 0 is when its first request may arrive.
class RunClock {
 public:
  using Clock = std::chrono::steady_clock;

  explicit RunClock(Clock::time_point start) : start_(start) {}
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  Clock::time_point at(double seconds) const {
    return start_ +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }
  Clock::time_point start() const { return start_; }

 private:
  Clock::time_point start_;
};

struct Call {
  std::string job_id, prompt;
  uint64_t seed = 0;
  double scheduled = 0;
  Turn turn;  // its text is part of the prompt
  bool keep_text = false;
};

struct Answer {
  Record record;
  std::string text;
};

class Client {
 public:
  // `on_gap(at, seconds)`: from one token of a stream to the next.
  using OnGap = std::function<void(double, double)>;

  Client(const Options& options, const RunClock& clock);

  // Never throws for what the server or the network does: the record says it. A connection each.
  Task<Answer> generate(Call call, OnGap on_gap) const;
  // POST /cancel. True if the server knew the job.
  Task<bool> cancel(std::string job_id) const;

 private:
  class Exchange;

  const Options& options_;
  const RunClock& clock_;
  const boost::asio::ip::tcp::endpoint server_;
};

}  // namespace llorch::bench
