#include "pool/ready_callback.h"

#include <utility>  // before Asio: its headers of this version use std::exchange unseen

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/os.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How often a pending attempt looks at the stop token.
constexpr milliseconds kSlice{20};

// One POST, on an io_context of its own so that a stop or a deadline can end it anywhere.
class Attempt {
 public:
  Attempt(const CallbackUrl& url, const std::string& body) : stream_(context_) {
    request_.method(http::verb::post);
    request_.target(url.target);
    request_.version(11);
    request_.set(http::field::host, url.authority);
    request_.set(http::field::user_agent, "llorch");
    request_.set(http::field::content_type, "application/json");
    request_.set(http::field::connection, "close");
    request_.body() = body;
    request_.prepare_payload();
    parser_.body_limit(1 << 20);
  }

  // The answer's status; an exception with the reason if there is none by `deadline`.
  int run(const std::vector<asio::ip::tcp::endpoint>& endpoints, Clock::time_point deadline,
          std::stop_token stop) {
    stream_.async_connect(endpoints, [this](beast::error_code error, const auto&) {
      if (error) return finish(error);
      http::async_write(stream_, request_, [this](beast::error_code written, size_t) {
        if (written) return finish(written);
        // The status line is all that matters; a body may be late or endless.
        http::async_read_header(stream_, buffer_, parser_,
                                [this](beast::error_code read, size_t) { finish(read); });
      });
    });
    while (!result_ && Clock::now() < deadline && !stop.stop_requested()) context_.run_for(kSlice);
    if (!result_) throw beast::system_error(beast::error::timeout);
    if (*result_) throw beast::system_error(*result_);
    return static_cast<int>(parser_.get().result_int());
  }

 private:
  void finish(beast::error_code error) { result_ = error; }

  asio::io_context context_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response_parser<http::string_body> parser_;
  std::optional<beast::error_code> result_;
};

std::vector<asio::ip::tcp::endpoint> resolve(const CallbackUrl& url, milliseconds timeout) {
  uint16_t port = 0;
  std::from_chars(url.port.data(), url.port.data() + url.port.size(), port);
  std::vector<asio::ip::tcp::endpoint> endpoints;
  boost::system::error_code error;
  const auto literal = asio::ip::make_address(url.host, error);
  if (!error) return {{literal, port}};
  for (const std::string& address : os::resolve_host(url.host, timeout)) {
    const auto parsed = asio::ip::make_address(address, error);
    if (!error) endpoints.emplace_back(parsed, port);
  }
  return endpoints;
}

// False if `stop` was asked for before the time was over.
bool pause(milliseconds time, std::stop_token stop) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any wake;
  wake.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace

CallbackUrl parse_callback_url(const std::string& url) {
  const auto refuse = [&](const std::string& reason) -> Error {
    return {ErrorCode::kBadArgument, "--callback-url: '" + url + "': " + reason};
  };
  constexpr std::string_view kScheme = "http://";
  if (url.rfind("https://", 0) == 0) throw refuse("https is not supported; want http://");
  if (url.rfind(kScheme, 0) != 0) throw refuse("want http://host[:port]/path");
  for (const char c : url) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) throw refuse("has a space or control");
  }
  CallbackUrl parsed;
  const size_t start = kScheme.size();
  const size_t end = std::min(url.find_first_of("/?#", start), url.size());
  parsed.authority = url.substr(start, end - start);
  parsed.target = url.substr(end, std::min(url.find('#', end), url.size()) - end);
  if (parsed.target.empty() || parsed.target[0] != '/') parsed.target.insert(0, "/");
  if (parsed.authority.find('@') != std::string::npos) throw refuse("user names are not supported");

  const bool bracket = !parsed.authority.empty() && parsed.authority[0] == '[';
  const size_t host_end = bracket ? parsed.authority.find(']') : parsed.authority.find(':');
  if (bracket && host_end == std::string::npos) throw refuse("has an unclosed bracket");
  parsed.host =
      bracket ? parsed.authority.substr(1, host_end - 1) : parsed.authority.substr(0, host_end);
  if (parsed.host.empty()) throw refuse("names no host");
  const size_t after = bracket ? host_end + 1 : std::min(host_end, parsed.authority.size());
  parsed.port = "80";
  if (after < parsed.authority.size()) {
    parsed.port = parsed.authority.substr(after + 1);
    int port = 0;
    const char* last = parsed.port.data() + parsed.port.size();
    const auto [stop, error] = std::from_chars(parsed.port.data(), last, port);
    if (parsed.authority[after] != ':' || error != std::errc() || stop != last || port < 1 ||
        port > 65535) {
      throw refuse("has no valid port");
    }
  }
  return parsed;
}

std::string to_json(const ReadyMessage& message) {
  return nlohmann::ordered_json{{"worker_id", message.worker_id},
                                {"vram_bytes", message.vram_bytes},
                                {"uri", message.uri},
                                {"model_ref", message.model_ref},
                                {"backend", message.backend},
                                {"memory_bytes", message.memory_bytes},
                                {"capabilities", message.capabilities}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool send_ready(const std::string& url, const ReadyMessage& message, const CallbackTiming& timing,
                std::stop_token stop) {
  if (url.empty() || url.find("localhost:9999") != std::string::npos) return false;
  const CallbackUrl parsed = parse_callback_url(url);
  const std::string body = to_json(message);
  const auto deadline = Clock::now() + timing.total;
  for (milliseconds wait = timing.first_pause;; wait *= 2) {
    const auto attempt_end = std::min(Clock::now() + timing.attempt, deadline);
    std::string answer;
    bool final = false;
    try {
      const auto left = std::chrono::duration_cast<milliseconds>(attempt_end - Clock::now());
      const int status = Attempt(parsed, body).run(resolve(parsed, left), attempt_end, stop);
      if (status >= 200 && status < 300) return true;
      answer = "HTTP status " + std::to_string(status);
      final = status < 500;
    } catch (const std::exception& error) {
      answer = error.what();
    }
    if (stop.stop_requested()) return false;
    if (final || Clock::now() + wait >= deadline) {
      throw Error(ErrorCode::kCallbackRefused, "[ready callback] " + url + ": " + answer);
    }
    if (!pause(wait, stop)) return false;
  }
}

}  // namespace llorch
