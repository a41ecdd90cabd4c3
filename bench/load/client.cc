#include "load/client.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "load/stream_reader.h"

namespace llorch::bench {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

auto token(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

std::string post(const std::string& host, const std::string& path, const std::string& body) {
  return "POST " + path + " HTTP/1.1\r\nHost: " + host +
         "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

std::string request_text(const Options& options, const Call& call) {
  nlohmann::json body = {{"prompt", call.prompt},
                         {"max_tokens", call.turn.output_tokens},
                         {"temperature", options.temperature},
                         {"seed", call.seed},
                         {"ignore_eos", true}};
  if (options.api == Api::kExecute) {
    body["job_id"] = call.job_id;
    return post(options.host, "/execute", body.dump());
  }
  body["model"] = options.model;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  return post(options.host, "/v1/completions", body.dump());
}

}  // namespace

// One connection with one request.
class Client::Exchange {
 public:
  Exchange(const Client& client, const Call& call, const OnGap& on_gap,
           const asio::any_io_executor& executor)
      : client_(client),
        call_(call),
        on_gap_(on_gap),
        stream_(executor),
        reader_(client.options_.api, call.keep_text) {
    parser_.body_limit(std::numeric_limits<uint64_t>::max());
    parser_.eager(true);
    record_.scheduled = call.scheduled;
    stream_.expires_at(client.clock_.at(call.scheduled + client.options_.timeout_s));
  }

  Task<Answer> run() {
    record_.sent = now();
    if (co_await ask()) {
      const unsigned status = parser_.get().result_int();
      if (status == 200) {
        co_await follow();
      } else {
        co_await take_refusal(status);
      }
    }
    record_.ended = now();
    record_.prompt_tokens = reader_.prompt_tokens();
    record_.cached_tokens = reader_.cached_tokens();
    record_.tokens_out = reader_.ended() ? std::max(reader_.tokens_out(), 0) : record_.events;
    co_return Answer{record_, reader_.text()};
  }

 private:
  double now() const { return client_.clock_.now(); }

  void end(Outcome outcome, std::string code = "", std::string detail = "") {
    record_.outcome = outcome;
    record_.code = std::move(code);
    record_.detail = std::move(detail);
  }
  void lose(const error_code& ec, const char* otherwise) {
    end(Outcome::kLost, ec == beast::error::timeout ? "timeout" : otherwise, ec.message());
  }

  // True once there is the head of an answer.
  Task<bool> ask() {
    error_code ec;
    co_await stream_.async_connect(client_.server_, token(ec));
    if (ec) {
      end(Outcome::kFailed, "connect", ec.message());
      co_return false;
    }
    stream_.socket().set_option(asio::ip::tcp::no_delay(true), ec);
    const std::string text = request_text(client_.options_, call_);
    co_await asio::async_write(stream_, asio::buffer(text), token(ec));
    // An answer may be there although not all was taken.
    co_await http::async_read_header(stream_, buffer_, parser_, token(ec));
    if (ec) lose(ec, "no_answer");
    co_return !ec;
  }

  Task<void> take_refusal(unsigned status) {
    error_code ec;
    co_await http::async_read(stream_, buffer_, parser_, token(ec));
    const bool refused = status == 429 || status == 503;
    record_.retry_after = parser_.get().count(http::field::retry_after) > 0;
    end(refused ? Outcome::kRefused : Outcome::kFailed, "http_" + std::to_string(status),
        parser_.get().body().substr(0, 300));
  }

  Task<void> follow() try {
    error_code ec;
    const bool leaves = call_.turn.leave != Leave::kNo;
    bool asked = false;
    for (;;) {
      take_tokens();
      if (leaves && !asked && record_.events >= call_.turn.leave_after && !reader_.ended()) {
        asked = true;
        if (leave()) co_return;
      }
      if (parser_.is_done() || ec) break;
      co_await http::async_read_some(stream_, buffer_, parser_, token(ec));
    }
    if (!reader_.ended()) {
      lose(ec, "closed_early");
    } else if (reader_.error().empty()) {
      end(Outcome::kOk);
    } else if (asked && reader_.error() == "CANCELLED") {
      end(Outcome::kCancelled);
    } else {
      end(Outcome::kFailed, reader_.error());
    }
  } catch (const std::runtime_error& e) {
    end(Outcome::kFailed, "bad_stream", e.what());
  }

  void take_tokens() {
    std::string& body = parser_.get().body();
    int tokens = reader_.feed(body);
    body.clear();
    const double at = tokens > 0 ? now() : 0;
    if (tokens > 0 && record_.events == 0) {
      record_.first = record_.last = at;
      ++record_.events;
      --tokens;
    }
    for (; tokens > 0; --tokens) {
      on_gap_(at, at - record_.last);
      record_.last = at;
      ++record_.events;
    }
  }

  // True if nothing more will be read.
  bool leave() {
    if (call_.turn.leave == Leave::kCancel) {
      asio::co_spawn(
          stream_.get_executor(),
          [&client = client_, id = call_.job_id] { return client.cancel(id); }, asio::detached);
      return false;
    }
    stream_.close();
    end(Outcome::kDisconnected);
    return true;
  }

  const Client& client_;
  const Call& call_;
  const OnGap& on_gap_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  StreamReader reader_;
  Record record_;
};

Client::Client(const Options& options, const RunClock& clock)
    : options_(options),
      clock_(clock),
      server_(asio::ip::make_address(options.host), options.port) {}

Task<Answer> Client::generate(Call call, OnGap on_gap) const {
  Exchange exchange(*this, call, on_gap, co_await asio::this_coro::executor);
  co_return co_await exchange.run();
}

Task<bool> Client::cancel(std::string job_id) const {
  error_code ec;
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  stream.expires_after(std::chrono::seconds(30));
  co_await stream.async_connect(server_, token(ec));
  const std::string text =
      post(options_.host, "/cancel", nlohmann::json({{"job_id", job_id}}).dump());
  if (!ec) co_await asio::async_write(stream, asio::buffer(text), token(ec));
  beast::flat_buffer buffer;
  http::response<http::string_body> answer;
  if (!ec) co_await http::async_read(stream, buffer, answer, token(ec));
  co_return !ec && answer.result() == http::status::accepted;
}

}  // namespace llorch::bench
