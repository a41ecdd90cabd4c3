// One client's socket: HTTP requests in, answers and event streams out, within limits. Knows the
// routes only as Api. Included by the server's own sources alone: it brings Asio along.
#pragma once

#include <utility>  // Asio 1.74 needs std::exchange, but does not include it

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <memory>
#include <string_view>
#include <unordered_set>

#include "server/api.h"
#include "server/http_text.h"
#include "server/turns.h"

namespace llorch {

class Connection;

// One I/O thread. All but `context` belongs to that thread.
struct IoThread {
  boost::asio::io_context context{1};
  Turns turns{context};
  std::unordered_set<std::shared_ptr<Connection>> connections;
  bool closing = false;
};

// What all connections share.
struct Shared {
  explicit Shared(const ServerOptions& o) : options(o), api(o, connections) {}
  const ServerOptions options;
  std::atomic<int> connections{0};
  Api api;
  std::atomic<size_t> body_bytes{0};  // of requests that are being read or handled
  // Handles what is_heavy(), so that parsing, templating and tokenising keep no I/O thread from the
  // others. Two threads: a chat goes past one long text.
  boost::asio::thread_pool heavy{2};
  std::atomic<bool> stopping{false};  // what has not begun is refused
};

// Lives on one I/O thread; every member is called there.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<IoThread> home,
             std::shared_ptr<Shared> shared);
  ~Connection();

  void start();
  // Closes once the answer under way has been written; at once if there is none, or no whole
  // request.
  void finish();
  void abort();

 private:
  using Clock = std::chrono::steady_clock;
  using Bytes = std::string_view;
  template <class T>
  using Task = boost::asio::awaitable<T>;

  struct Incoming;  // a request being read
  enum class Next { kRequest, kClose, kLinger };

  Task<void> run();
  Task<Next> serve_one();
  Task<Next> answer_one(Incoming& in);
  Task<bool> wait_for_bytes();
  Task<std::optional<Reply>> read_head(Incoming& in);
  Task<std::optional<Reply>> read_body(Incoming& in);
  Task<Next> reply(const Reply& reply, const Incoming& in);
  Task<Api::Outcome> handle(const Incoming& in);
  Task<Next> follow(std::shared_ptr<Execution> execution, const Incoming& in);
  Task<bool> send_events(Execution& execution, const Framing& framing);
  Task<bool> collect(Execution& execution, std::string& body);
  Task<void> wait_for_signal(Clock::time_point until = Clock::time_point::max());
  Task<bool> send(Bytes head, Bytes body = {}, Bytes tail = {});
  Task<void> linger();
  Task<void> watch_deadline();
  Task<void> watch_peer(Execution& execution);

  void end();
  void peer_has_gone(Execution& execution);
  void set_deadline(Clock::duration from_now);
  void clear_deadline();
  std::function<void()> resumer();
  std::function<void()> waker();

  boost::asio::ip::tcp::socket socket_;
  const std::shared_ptr<IoThread> home_;
  const std::shared_ptr<Shared> shared_;
  boost::beast::flat_buffer buffer_;  // read, but not yet consumed
  boost::asio::steady_timer deadline_timer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  bool timed_out_ = false;            // the last operation was cancelled by the deadline
  boost::asio::steady_timer signal_;  // cancelled to wake the coroutine that waits for events
  bool watching_peer_ = false, stop_watching_ = false;
  Clock::time_point peer_gone_ = Clock::time_point::max();
  bool writing_ = false;   // an answer or a stream is under way
  bool answered_ = false;  // some of it may have left
  bool finishing_ = false, closed_ = false;
};

}  // namespace llorch
