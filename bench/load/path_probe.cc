#include "load/path_probe.h"

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <thread>

namespace llorch::bench {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using namespace std::chrono_literals;

namespace {

constexpr auto kPatience = 10s;

auto token(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

}  // namespace

struct PathProbe::Impl {
  Impl(const Options& options, const RunClock& run_clock)
      : clock(run_clock),
        server(asio::ip::make_address(options.host), options.port),
        question("GET " + options.probe_path + " HTTP/1.1\r\nHost: " + options.host + "\r\n\r\n"),
        interval_s(1 / options.probe_rate) {
    asio::co_spawn(context, ask_again_and_again(), asio::detached);
    thread = std::thread([this] { context.run(); });
  }

  Task<void> ask_again_and_again() {
    asio::steady_timer timer(context);
    for (uint64_t i = 0;; ++i) {
      error_code ignored;
      const double due = static_cast<double>(i) * interval_s;
      timer.expires_at(clock.at(due));
      co_await timer.async_wait(token(ignored));
      if (stopping) co_return;
      const bool answered = co_await ask();
      const double took = clock.now() - due;
      samples.push_back({static_cast<float>(due), static_cast<float>(answered ? took : -took)});
    }
  }

  Task<bool> ask() {
    error_code ec;
    if (!stream) {
      stream.emplace(context);
      stream->expires_after(kPatience);
      co_await stream->async_connect(server, token(ec));
    }
    stream->expires_after(kPatience);
    http::response<http::string_body> answer;
    if (!ec) co_await asio::async_write(*stream, asio::buffer(question), token(ec));
    if (!ec) co_await http::async_read(*stream, buffer, answer, token(ec));
    if (ec || !answer.keep_alive()) {
      stream.reset();
      buffer.clear();
    }
    co_return !ec && answer.result() == http::status::ok;
  }

  const RunClock& clock;
  const asio::ip::tcp::endpoint server;
  const std::string question;
  const double interval_s;
  asio::io_context context{1};
  std::optional<beast::tcp_stream> stream;
  beast::flat_buffer buffer;
  std::vector<PathSample> samples;
  std::atomic<bool> stopping{false};
  std::thread thread;
};

PathProbe::PathProbe(const Options& options, const RunClock& clock) {
  if (options.probe_rate > 0) impl_ = std::make_unique<Impl>(options, clock);
}

PathProbe::~PathProbe() { stop(); }

std::vector<PathSample> PathProbe::stop() {
  if (!impl_) return {};
  impl_->stopping = true;
  if (impl_->thread.joinable()) impl_->thread.join();
  return std::move(impl_->samples);
}

}  // namespace llorch::bench
