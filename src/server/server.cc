#include "server/server.h"

#include <utility>  // before Asio, see connection.h

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory_reserve.h"
#include "base/os.h"
#include "server/connection.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;

// Bounds the kernel's share of a slow reader's backlog.
constexpr int kSendBufferBytes = 128 * 1024;
constexpr auto kAcceptPause = 100ms;
constexpr auto kFailurePause = 10ms;

tcp::endpoint resolve(const std::string& host, uint16_t port) {
  error_code ec;
  asio::ip::address address = asio::ip::make_address(host, ec);
  if (ec) address = asio::ip::make_address(os::resolve_host(host, 5s).at(0));
  return {address, port};
}

tcp::acceptor listen(asio::io_context& context, const ServerOptions& options) {
  try {
    const tcp::endpoint endpoint = resolve(options.host, options.port);
    tcp::acceptor acceptor(context);
    acceptor.open(endpoint.protocol());
#ifndef _WIN32  // where it would let two workers have the same port
    acceptor.set_option(tcp::acceptor::reuse_address(true));
#endif
    acceptor.bind(endpoint);
    acceptor.listen();
    return acceptor;
  } catch (const std::exception& e) {
    throw Error(ErrorCode::kPortInUse,
                "[listen] " + options.host + ":" + std::to_string(options.port) + ": " + e.what());
  }
}

}  // namespace

struct Server::Impl {
  explicit Impl(const ServerOptions& options) : shared(std::make_shared<Shared>(options)) {
    for (int i = 0; i < std::max(options.threads, 1); ++i) {
      threads.push_back(std::make_shared<IoThread>());
    }
    acceptor.emplace(listen(threads[0]->context, options));
    pause.emplace(threads[0]->context);
    port = acceptor->local_endpoint().port();
    accept();
    for (const auto& thread : threads) {
      work.push_back(asio::make_work_guard(thread->context));
      running.emplace_back([this, thread] { run(*thread); });
    }
  }
  ~Impl() { stop(); }

  // What all connections share must not fail for want of memory, and Asio cannot have it: what a
  // request asks for is marked MayFail.
  void run(IoThread& thread) {
    os::name_this_thread("io");
    const MustAllocate must;
    for (;;) {
      try {
        if (&thread == threads[0].get() && !accepting) accept();
        thread.context.run();
        return;
      } catch (const std::exception& e) {
        log(Level::kError, "io_failed", {{"message", e.what()}});
        std::this_thread::sleep_for(kFailurePause);
      }
    }
  }

  void accept() {
    accepting = true;
    try {
      asio::co_spawn(threads[0]->context, accept_all(), asio::detached);
    } catch (...) {
      accepting = false;
      throw;
    }
  }

  asio::awaitable<void> accept_all() {
    const struct AtEnd {
      bool& accepting;
      ~AtEnd() { accepting = false; }
    } at_end{accepting};
    bool failing = false;
    for (;;) {
      std::string why;
      try {
        why = co_await accept_one();
      } catch (const std::exception& e) {
        why = e.what();
      }
      if (!acceptor->is_open()) co_return;
      if (!why.empty()) {
        // Out of descriptors or memory: those who are connected go on, the others wait.
        if (!failing) log(Level::kWarn, "accept_failed", {{"message", why}});
        error_code ignored;
        pause->expires_after(kAcceptPause);
        co_await pause->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      }
      failing = !why.empty();
    }
  }

  // Gives what went wrong.
  asio::awaitable<std::string> accept_one() {
    const auto home = threads[next_home++ % threads.size()];
    tcp::socket socket(home->context);
    error_code ec;
    co_await acceptor->async_accept(socket, asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return ec.message();
    take(std::move(socket), home);
    co_return std::string();
  }

  void take(tcp::socket socket, const std::shared_ptr<IoThread>& home) {
    if (shared->connections >= shared->options.max_connections) {
      turn_away(std::move(socket), refuse(Refusal::kOverloaded, "too many connections"));
      return;
    }
    if (!refill_memory_reserve()) {
      turn_away(std::move(socket), out_of_memory());
      return;
    }
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    socket.set_option(asio::socket_base::send_buffer_size(kSendBufferBytes), ignored);
    auto connection = std::make_shared<Connection>(std::move(socket), home, shared);
    asio::post(home->context, [connection] { connection->start(); });
  }

  // A short answer that fits any send buffer, so that nothing is waited for.
  static void turn_away(tcp::socket socket, const Reply& reply) {
    error_code ignored;
    const std::string text = answer(reply, new_uuid(), {.keep_alive = false});
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(text), ignored);
    socket.shutdown(tcp::socket::shutdown_send, ignored);
  }

  void stop() {
    if (running.empty()) return;
    asio::post(threads[0]->context, [this] {
      error_code ignored;
      acceptor->close(ignored);
      pause->cancel();
    });
    for_each_connection([](Connection& c) { c.finish(); });
    bool all_closed = wait_closed(1s);
    if (!all_closed) {
      for_each_connection([](Connection& c) { c.abort(); });
      all_closed = wait_closed(1s);
    }
    // What waits for its turn is refused; what runs is waited for, since it looks at model and
    // engine. Either way its connection is told, and can end.
    shared->stopping = true;
    shared->heavy.join();
    if (!all_closed) all_closed = wait_closed(1s);
    work.clear();
    if (!all_closed) {
      for (const auto& thread : threads) thread->context.stop();
    }
    for (std::thread& thread : running) thread.join();
    running.clear();
    for (const auto& thread : threads) thread->connections.clear();
    acceptor.reset();
    pause.reset();
  }

  template <class Visit>
  void for_each_connection(Visit visit) {
    for (const auto& thread : threads) {
      asio::post(thread->context, [thread, visit] {
        thread->closing = true;
        // A copy: visiting may end a connection, which leaves the set.
        const auto all = thread->connections;
        for (const auto& connection : all) visit(*connection);
      });
    }
  }

  bool wait_closed(std::chrono::milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (shared->connections > 0) {
      if (std::chrono::steady_clock::now() >= deadline) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  std::shared_ptr<Shared> shared;
  std::vector<std::shared_ptr<IoThread>> threads;
  std::optional<tcp::acceptor> acceptor;  // of the first thread
  std::optional<asio::steady_timer> pause;
  bool accepting = false;  // accept_all() runs; the first thread's, once it runs
  size_t next_home = 0;
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::vector<std::thread> running;
  uint16_t port = 0;
};

Server::Server(const ServerOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Server::~Server() = default;
uint16_t Server::port() const { return impl_->port; }
void Server::serve(const Service& service) { impl_->shared->api.serve(service); }
void Server::on_shutdown(std::function<void()> callback) {
  impl_->shared->api.on_shutdown(std::move(callback));
}
void Server::start_drain() { impl_->shared->api.start_drain(); }
void Server::stop() { impl_->stop(); }

}  // namespace llorch
