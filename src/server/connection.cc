#include "server/connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <limits>
#include <new>

#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory_reserve.h"
#include "server/openai_error.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using namespace std::chrono_literals;

constexpr size_t kMaxHeadBytes = 16 * 1024;
constexpr int kMaxHeaders = 100;
constexpr size_t kMaxBodyBytesInAll = 256 * 1024 * 1024;
// What a client may send ahead while its stream runs.
constexpr size_t kMaxAhead = 64 * 1024;
// After an end of file: how long the last event may take to come and to leave.
constexpr auto kAfterEnd = 5s;
constexpr auto kLinger = 2s;
constexpr size_t kMaxLingerBytes = 16 * 1024 * 1024;

auto token(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

// Memory that a request's body may take, held until the request has been handled.
class BodyShare {
 public:
  BodyShare() = default;
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;
  ~BodyShare() { give_back(); }
  bool take(std::atomic<size_t>& total, size_t bytes) {
    if (total.fetch_add(bytes) + bytes > kMaxBodyBytesInAll) {
      total.fetch_sub(bytes);
      return false;
    }
    total_ = &total;
    bytes_ = bytes;
    return true;
  }
  void give_back() {
    if (total_) total_->fetch_sub(bytes_);
    total_ = nullptr;
  }

 private:
  std::atomic<size_t>* total_ = nullptr;
  size_t bytes_ = 0;
};

Reply refuse_and_close(Refusal code, std::string_view message) {
  Reply reply = refuse(code, message);
  reply.close = true;
  return reply;
}

// What a client that cannot be understood is told; none if it is not there any more.
std::optional<Reply> answer_to(const error_code& ec, bool timed_out, size_t most_bytes = 0) {
  if (timed_out) return refuse_and_close(Refusal::kRequestTimeout, "the request came too slowly");
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    return refuse_and_close(
        Refusal::kHeadersTooLarge,
        "the head of the request is too large; at most 16384 bytes and 100 headers");
  }
  if (ec == http::error::body_limit) {
    return refuse_and_close(Refusal::kPayloadTooLarge, "the body is too large; at most " +
                                                           std::to_string(most_bytes) + " bytes");
  }
  if (ec == http::error::partial_message) {
    return refuse_and_close(Refusal::kMalformed, "the request ends in the middle");
  }
  if (ec.category() == http::make_error_code(http::error::bad_method).category() &&
      ec != http::error::end_of_stream) {
    return refuse_and_close(Refusal::kMalformed, "malformed HTTP: " + ec.message());
  }
  return std::nullopt;
}

std::string text_of(const Reply& reply, std::string_view path, const std::string& correlation,
                    const Framing& framing) {
  // A short one must get through; a text of many tokens is what was asked for.
  constexpr size_t kShort = 4096;
  std::optional<MayFail> may;
  if (reply.body.size() > kShort) may.emplace();
  return is_openai_path(path) ? answer(in_openai_form(reply), correlation, framing)
                              : answer(reply, correlation, framing);
}

}  // namespace

struct Connection::Incoming {
  http::request_parser<http::string_body> parser;
  std::string correlation;
  RequestHead head;
  Framing framing;
  size_t most_bytes = 0;  // of the body
  BodyShare share;

  const auto& message() const { return parser.get(); }
  std::string_view field(beast::string_view name) const { return view(message()[name]); }
  std::optional<std::string_view> optional_field(beast::string_view name) const {
    const size_t count = message().count(name);
    if (count == 0) return std::nullopt;
    return count == 1 ? field(name) : std::string_view();  // of two, neither is right
  }
  bool has_body() const { return !parser.is_done(); }
};

Connection::Connection(asio::ip::tcp::socket socket, std::shared_ptr<IoThread> home,
                       std::shared_ptr<Shared> shared)
    : socket_(std::move(socket)),
      home_(std::move(home)),
      shared_(std::move(shared)),
      deadline_timer_(home_->context),
      signal_(home_->context) {
  ++shared_->connections;
}

Connection::~Connection() { --shared_->connections; }

void Connection::start() {
  const auto self = shared_from_this();
  try {
    home_->connections.insert(self);
    asio::co_spawn(
        home_->context, [self] { return self->watch_deadline(); }, asio::detached);
    asio::co_spawn(
        home_->context, [self] { return self->run(); }, asio::detached);
  } catch (...) {
    end();
    throw;
  }
  if (home_->closing) finish();
}

void Connection::finish() {
  finishing_ = true;
  if (!writing_) abort();
}

void Connection::abort() {
  error_code ignored;
  socket_.close(ignored);
  signal_.cancel();
}

Connection::Task<void> Connection::run() {
  // Also when Asio drops the coroutine, because one of its handlers has thrown.
  const struct AtEnd {
    Connection& connection;
    ~AtEnd() { connection.end(); }
  } at_end{*this};
  Next next = Next::kRequest;
  try {
    while (next == Next::kRequest) next = co_await serve_one();
    if (next == Next::kLinger) co_await linger();
  } catch (const std::exception& e) {
    log(Level::kError, "connection_failed", {{"message", e.what()}});
  }
}

void Connection::end() {
  closed_ = true;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  deadline_timer_.cancel();
  home_->connections.erase(shared_from_this());
}

// One request from its first byte to the last byte of its answer.
Connection::Task<Connection::Next> Connection::serve_one() {
  writing_ = answered_ = false;
  if (finishing_ || !co_await wait_for_bytes()) co_return Next::kClose;
  Incoming in;
  try {
    co_return co_await answer_one(in);
  } catch (const std::bad_alloc&) {
    if (answered_) co_return Next::kClose;
  }
  if (in.correlation.empty()) in.correlation = new_uuid();
  const Reply refusal = out_of_memory();
  co_return co_await reply(refusal, in);
}

Connection::Task<Connection::Next> Connection::answer_one(Incoming& in) {
  std::optional<Reply> refusal = co_await read_head(in);
  if (!refusal && !socket_.is_open()) co_return Next::kClose;
  if (refusal && refusal->close) co_return co_await reply(*refusal, in);
  refusal = shared_->api.check(in.head);
  const bool expects = beast::iequals(in.message()[http::field::expect], "100-continue");
  if (in.has_body()) {
    if (expects && refusal) {
      // The client waits for this answer and need not send its body at all.
      refusal->close = true;
      co_return co_await reply(*refusal, in);
    }
    if (expects && in.framing.http_1_1 && !co_await send(kContinue)) co_return Next::kClose;
    if (const std::optional<Reply> bad = co_await read_body(in)) {
      co_return co_await reply(*bad, in);
    }
    home_->turns.add(resumer());
    co_await wait_for_signal();
    if (!socket_.is_open()) co_return Next::kClose;
  }
  if (refusal) co_return co_await reply(*refusal, in);

  const Api::Outcome outcome = co_await handle(in);
  if (const Reply* whole = std::get_if<Reply>(&outcome)) co_return co_await reply(*whole, in);
  // It may run for minutes; what was asked is with the engine by now.
  in.parser.get().body() = std::string();
  in.share.give_back();
  co_return co_await follow(std::get<std::shared_ptr<Execution>>(outcome), in);
}

// What the routes make of a request that is wholly read.
Connection::Task<Api::Outcome> Connection::handle(const Incoming& in) {
  const auto work = [this, &in, wake = waker()]() -> Api::Outcome {
    try {
      const MayFail may;
      return shared_->api.handle(in.head, in.message().body(), wake);
    } catch (const std::bad_alloc&) {
      return out_of_memory();
    } catch (const std::exception& e) {
      log(Level::kError, "request_failed",
          {{"correlation_id", in.correlation}, {"message", e.what()}});
      return refuse(Refusal::kInternal, "the request failed inside the worker");
    }
  };
  if (!is_heavy(in.head.path, in.message().body().size())) co_return work();
  std::optional<Api::Outcome> outcome;  // this thread's; the server's stop() waits for the work
  writing_ = true;
  asio::post(shared_->heavy, [&, self = shared_from_this()] {
    const MustAllocate must;
    Api::Outcome made =
        shared_->stopping ? refuse(Refusal::kUnavailable, "the worker is shutting down") : work();
    asio::post(home_->context, [&outcome, self, made = std::move(made)]() mutable {
      outcome = std::move(made);
      self->signal_.cancel();
    });
  });
  while (!outcome) co_await wait_for_signal();
  co_return std::move(*outcome);
}

// Between requests; false if the connection is over.
Connection::Task<bool> Connection::wait_for_bytes() {
  if (buffer_.size() > 0) co_return true;
  error_code ec;
  set_deadline(shared_->options.read_timeout);
  const size_t bytes = co_await socket_.async_read_some(buffer_.prepare(4096), token(ec));
  buffer_.commit(bytes);
  clear_deadline();
  co_return !ec;
}

// Fills in.head. A refusal of this kind always closes; without one and with the socket closed, the
// client has gone.
Connection::Task<std::optional<Reply>> Connection::read_head(Incoming& in) {
  in.parser.header_limit(kMaxHeadBytes);
  // The path decides, below. (Beast 1.74 takes `none` for a limit of nothing.)
  in.parser.body_limit(std::numeric_limits<uint64_t>::max());
  error_code ec;
  set_deadline(shared_->options.read_timeout);
  co_await http::async_read_header(socket_, buffer_, in.parser, token(ec));
  clear_deadline();
  const auto& message = in.message();
  in.correlation = correlation_id(in.field("X-Correlation-ID"));
  in.framing.http_1_1 = message.version() >= 11;
  in.framing.keep_alive = message.keep_alive();
  in.framing.head_only = message.method() == http::verb::head;
  if (ec) {
    std::optional<Reply> refusal = answer_to(ec, timed_out_);
    if (!refusal) abort();
    co_return refusal;
  }
  if (std::distance(message.begin(), message.end()) > kMaxHeaders) {
    co_return answer_to(http::error::header_limit, false);
  }
  if (message.count(http::field::transfer_encoding) > 0 && !message.chunked()) {
    co_return refuse_and_close(Refusal::kMalformed, "unknown transfer encoding");
  }
  if (in.framing.http_1_1 && message.count(http::field::host) != 1) {
    co_return refuse_and_close(Refusal::kMalformed, "HTTP/1.1 needs one Host header");
  }
  in.head = {.method = view(message.method_string()),
             .path = path_of(view(message.target())),
             .content_type = in.field("Content-Type"),
             .content_encoding = in.field("Content-Encoding"),
             .deadline = in.optional_field("X-Deadline"),
             .deadline_ms = in.optional_field("X-Deadline-Ms"),
             .arrived = Clock::now(),
             .last_event_id = in.optional_field("Last-Event-ID"),
             .correlation_id = in.correlation,
             .loopback_peer = false};
  in.most_bytes = max_body_bytes(in.head.path);
  if (in.parser.content_length() && *in.parser.content_length() > in.most_bytes) {
    co_return answer_to(http::error::body_limit, false, in.most_bytes);
  }
  in.parser.body_limit(in.most_bytes);
  error_code unknown;
  const asio::ip::address peer = socket_.remote_endpoint(unknown).address();
  in.head.loopback_peer =
      !unknown && (peer.is_loopback() ||
                   (peer.is_v6() && peer.to_v6().is_v4_mapped() &&
                    asio::ip::make_address_v4(asio::ip::v4_mapped, peer.to_v6()).is_loopback()));
  co_return std::nullopt;
}

// As read_head. Every piece has the read timeout, all of them together four times that.
Connection::Task<std::optional<Reply>> Connection::read_body(Incoming& in) {
  const auto length = in.parser.content_length();
  if (!in.share.take(shared_->body_bytes, length ? *length : in.most_bytes)) {
    co_return refuse_and_close(Refusal::kOverloaded, "too many large requests at once");
  }
  {
    const MayFail may;  // here, for within the parser it must not
    in.parser.get().body().reserve(length ? *length : in.most_bytes);
  }
  const auto timeout = shared_->options.read_timeout;
  const auto end = Clock::now() + 4 * timeout;
  in.parser.eager(true);
  while (!in.parser.is_done()) {
    error_code ec;
    set_deadline(std::min<Clock::duration>(timeout, end - Clock::now()));
    co_await http::async_read_some(socket_, buffer_, in.parser, token(ec));
    clear_deadline();
    if (ec) {
      std::optional<Reply> refusal = answer_to(ec, timed_out_, in.most_bytes);
      if (!refusal) abort();
      co_return refusal;
    }
  }
  co_return std::nullopt;
}

Connection::Task<Connection::Next> Connection::reply(const Reply& reply, const Incoming& in) {
  writing_ = true;
  shared_->api.note(in.head.path, reply);
  Framing framing = in.framing;
  framing.keep_alive = framing.keep_alive && !finishing_;
  const std::string text = text_of(reply, in.head.path, in.correlation, framing);
  answered_ = true;
  const bool sent = co_await send(text);
  if (!sent) co_return Next::kClose;
  if (reply.close) co_return Next::kLinger;
  co_return framing.keep_alive ? Next::kRequest : Next::kClose;
}

// A client that closes, or only shuts down its sending side, ends its request: TCP does not tell
// one from the other until something is written, and a closed socket must end the job at once. It
// is still sent what a stream has left, the last event included.
Connection::Task<Connection::Next> Connection::follow(std::shared_ptr<Execution> execution,
                                                      const Incoming& in) {
  writing_ = true;
  stop_watching_ = false;
  watching_peer_ = true;
  peer_gone_ = Clock::time_point::max();
  const auto self = shared_from_this();
  asio::co_spawn(
      home_->context, [self, execution] { return self->watch_peer(*execution); }, asio::detached);
  const bool streams = execution->streams();
  Reply whole;
  bool done = false;
  if (streams) {
    answered_ = true;
    done = co_await send(stream_head(in.correlation, in.framing)) &&
           co_await send_events(*execution, in.framing);
  } else {
    done = co_await collect(*execution, whole.body);
  }
  // Reading must have ended before the next request is parsed from the same buffer.
  stop_watching_ = true;
  error_code ignored;
  socket_.cancel(ignored);
  while (watching_peer_) co_await wait_for_signal();
  if (!done || peer_gone_ != Clock::time_point::max()) co_return Next::kClose;
  if (!streams) {
    whole.status = execution->status();
    co_return co_await reply(whole, in);
  }
  const bool keep = in.framing.http_1_1 && in.framing.keep_alive && !finishing_;
  co_return keep ? Next::kRequest : Next::kClose;
}

// True once the execution has ended and all of its answer is there.
Connection::Task<bool> Connection::collect(Execution& execution, std::string& body) {
  for (;;) {
    {
      const MayFail may;
      body += execution.take();
    }
    if (execution.ended()) co_return true;
    if (peer_gone_ != Clock::time_point::max() || !socket_.is_open()) co_return false;
    co_await wait_for_signal();
  }
}

Connection::Task<void> Connection::wait_for_signal(Clock::time_point until) {
  error_code ignored;
  signal_.expires_at(until);
  co_await signal_.async_wait(token(ignored));
}

// True once the last event has been written.
Connection::Task<bool> Connection::send_events(Execution& execution, const Framing& framing) {
  Clock::time_point last_write = Clock::now();
  for (;;) {
    std::string bytes = execution.take();
    if (bytes.empty() && execution.keepalive() > 0ms &&
        Clock::now() >= last_write + execution.keepalive()) {
      bytes = ": keepalive\n\n";
    }
    if (!bytes.empty() || execution.ended()) {
      std::string head;
      Bytes tail;
      if (framing.http_1_1 && bytes.empty()) {
        tail = kLastChunk;  // a resumed stream that had been read to its end
      } else if (framing.http_1_1) {
        head = chunk_head(bytes.size());
        tail = execution.ended() ? kLastChunkEnd : kChunkEnd;
      }
      if (!co_await send(head, bytes, tail)) co_return false;
      last_write = Clock::now();
      if (execution.ended()) co_return true;
      continue;
    }
    auto wait_until = Clock::time_point::max();
    if (peer_gone_ != wait_until) {
      wait_until = peer_gone_ + kAfterEnd;
      if (Clock::now() >= wait_until) co_return false;
    } else if (execution.keepalive() > 0ms) {
      wait_until = last_write + execution.keepalive();
    }
    if (!socket_.is_open()) co_return false;
    co_await wait_for_signal(wait_until);
  }
}

Connection::Task<bool> Connection::send(Bytes head, Bytes body, Bytes tail) {
  error_code ec;
  const bool peer_left = peer_gone_ != Clock::time_point::max();
  set_deadline(peer_left ? Clock::duration(kAfterEnd)
                         : Clock::duration(shared_->options.write_timeout));
  const std::array<asio::const_buffer, 3> parts{asio::buffer(head.data(), head.size()),
                                                asio::buffer(body.data(), body.size()),
                                                asio::buffer(tail.data(), tail.size())};
  co_await asio::async_write(socket_, parts, token(ec));
  clear_deadline();
  co_return !ec;
}

// Closing with unread input would reset the connection, and the client might lose the answer.
Connection::Task<void> Connection::linger() {
  writing_ = false;
  error_code ec;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ec);
  set_deadline(kLinger);
  size_t dropped = 0;
  while (!ec && dropped < kMaxLingerBytes) {
    buffer_.clear();
    dropped += co_await socket_.async_read_some(buffer_.prepare(16 * 1024), token(ec));
    // Each operation that is cancelled ends the loop; the deadline is that of all of them.
  }
}

// Cancels what the socket is doing once the deadline has passed.
Connection::Task<void> Connection::watch_deadline() {
  while (!closed_) {
    error_code ignored;
    deadline_timer_.expires_at(deadline_);
    co_await deadline_timer_.async_wait(token(ignored));
    if (closed_) break;
    if (Clock::now() < deadline_) continue;
    timed_out_ = true;
    // Again, should the operation have got its data at the same moment and gone on.
    deadline_ = Clock::now() + 1s;
    socket_.cancel(ignored);
  }
}

// Reads while the stream is written, to learn that the client has left. What it sends ahead is kept
// for the next request.
Connection::Task<void> Connection::watch_peer(Execution& execution) {
  while (!stop_watching_) {
    if (buffer_.size() >= kMaxAhead) {
      peer_has_gone(execution);
      break;
    }
    error_code ec;
    const size_t bytes = co_await socket_.async_read_some(buffer_.prepare(4096), token(ec));
    buffer_.commit(bytes);
    if (ec && !stop_watching_) {
      peer_has_gone(execution);
      break;
    }
  }
  watching_peer_ = false;
  signal_.cancel();
}

void Connection::peer_has_gone(Execution& execution) {
  peer_gone_ = Clock::now();
  execution.leave();
  set_deadline(kAfterEnd);  // of the write under way, if there is one
  signal_.cancel();
}

void Connection::set_deadline(Clock::duration from_now) {
  timed_out_ = false;
  deadline_ = Clock::now() + from_now;
  // A later deadline is found when the timer fires for the earlier one.
  if (deadline_ < deadline_timer_.expiry()) deadline_timer_.cancel();
}

void Connection::clear_deadline() { deadline_ = Clock::time_point::max(); }

// Ends wait_for_signal(), on this connection's thread.
std::function<void()> Connection::resumer() {
  return [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->signal_.cancel();
  };
}

// The same from any thread. The engine may hold it longer than the connection lives.
std::function<void()> Connection::waker() {
  return [home = home_, resume = resumer()] {
    const MustAllocate must;  // else who waits for it would wait for ever
    home->turns.add(resume);
  };
}

}  // namespace llorch
