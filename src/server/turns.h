// The order in which an I/O thread does what streams and requests ask of it. Included by the
// server's own sources alone: it brings Asio along.
#pragma once

#include <utility>  // Asio 1.74 needs std::exchange, but does not include it

#include <boost/asio/io_context.hpp>
#include <deque>
#include <functional>
#include <mutex>

namespace llorch {

// A step of a thousand streams is a thousand writes, and a thousand requests may arrive together.
// All that is posted to an io_context runs before it looks at its sockets again, and a health probe
// would wait that long; so only a few of these are posted at a time.
class Turns {
 public:
  static constexpr size_t kAtOnce = 16;

  explicit Turns(boost::asio::io_context& context) : context_(context) {}

  // Any thread. `turn` runs on the context's, after all that were added before.
  void add(std::function<void()> turn);

 private:
  void give();

  boost::asio::io_context& context_;
  std::mutex mutex_;
  std::deque<std::function<void()>> waiting_;
  bool giving_ = false;  // give() has been posted
};

}  // namespace llorch
