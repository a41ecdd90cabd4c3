// The routes: a request that is wholly read becomes an answer, or an execution to be streamed.
// Knows no sockets, and nothing of how bytes become a request.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "server/errors.h"
#include "server/execution.h"
#include "server/generation.h"
#include "server/server.h"

namespace llorch {

// What the routes need of a request's head; valid as long as the request is.
struct RequestHead {
  std::string_view method, path;
  std::string_view content_type, content_encoding;
  std::optional<std::string_view> deadline, deadline_ms;  // X-Deadline, X-Deadline-Ms
  std::chrono::steady_clock::time_point arrived;
  std::optional<std::string_view> last_event_id;
  std::string correlation_id;
  bool loopback_peer = false;
};

// The most that a request to this path may bring.
size_t max_body_bytes(std::string_view path);

// True if handle() may take more than a few milliseconds: a long text, or a chat template at all.
// It is called off the I/O threads then.
bool is_heavy(std::string_view path, size_t body_bytes);

// Shared by all I/O threads; takes no lock and never waits for the engine.
class Api {
 public:
  using Outcome = std::variant<Reply, std::shared_ptr<Execution>>;

  // `connections` is read for the metrics.
  Api(const ServerOptions& options, const std::atomic<int>& connections)
      : options_(options), connections_(connections) {}

  void on_shutdown(std::function<void()> callback) { shutdown_ = std::move(callback); }
  void serve(const Service& service);  // once
  // What runs can still be attached to.
  void start_drain();

  // The refusal that a head deserves whatever its body says; none if the body is wanted.
  std::optional<Reply> check(const RequestHead& head) const;
  // Takes time with the size of the body: it is parsed and tokenised here. Any thread. `wake` is
  // called from the engine thread when the execution has events.
  Outcome handle(const RequestHead& head, std::string_view body, std::function<void()> wake);
  // For the metrics: this answer is about to be sent.
  void note(std::string_view path, const Reply& reply);

 private:
  const Service* service() const { return service_.load(std::memory_order_acquire); }
  const char* why_unhealthy(const EngineSnapshot& snapshot) const;
  double uptime_s() const;
  Reply health() const;
  Reply metrics() const;
  Reply live() const;
  Reply ready() const;
  Reply cancel(std::string_view body) const;
  Reply shut_down(const RequestHead& head);
  Reply model(std::string_view path) const;
  Outcome submit(const RequestHead& head, std::variant<Generation, Reply> wanted,
                 std::function<void()> wake) const;

  const ServerOptions options_;
  const std::atomic<int>& connections_;
  const std::chrono::steady_clock::time_point born_ = std::chrono::steady_clock::now();
  const int64_t created_ = std::chrono::duration_cast<std::chrono::seconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();
  std::function<void()> shutdown_;
  Service stored_service_;
  std::atomic<const Service*> service_{nullptr};
  std::atomic<bool> draining_{false}, shutdown_asked_{false};
  Counter refused_;  // requests to generate
};

}  // namespace llorch
