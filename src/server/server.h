// The worker's HTTP face: sockets, limits, routes (contract, section 5). Knows the engine only by
// its public members, never a step or a block.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "template/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace llorch {

struct ServerOptions {
  std::string host = "0.0.0.0";
  uint16_t port = 8080;  // 0: a free one
  int threads = 1;       // for I/O
  std::string model_name;
  std::string backend;  // "cpu"
  std::chrono::milliseconds request_timeout{0};
  std::optional<uint64_t> seed_default;  // none: a random one for each request

  // What one client can hold: connections of all together, the time for a request's head (its body
  // gets four times as long), and the time in which a reader must take something.
  int max_connections = 4096;
  std::chrono::milliseconds read_timeout{30'000};
  std::chrono::milliseconds write_timeout{60'000};
};

// What can be served once the model is loaded; all of it must outlive the server's stop().
struct Service {
  Engine* engine = nullptr;
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplates* chat = nullptr;
  std::string architecture;
  uint64_t weight_bytes = 0;  // "vram_bytes"
};

class Server {
 public:
  // Binds, listens and answers at once: until serve(), /livez is 200 and all else 503 LOADING.
  // Throws Error{kPortInUse} naming address and reason.
  explicit Server(const ServerOptions& options);
  ~Server();

  uint16_t port() const;
  // From loading to serving. Once.
  void serve(const Service& service);
  // Called on an I/O thread when POST /shutdown is accepted. Set before serve().
  void on_shutdown(std::function<void()> callback);
  // New work is refused with 503 and Retry-After, /readyz and /health turn 503; streams run on.
  void start_drain();
  // Lets what is being written leave (for at most a second), closes everything, joins the threads.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llorch
