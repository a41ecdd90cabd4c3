// Every allocation that a request costs fails once: that request is answered in the form that its
// path has for it, the other goes on, and nothing is left behind.
#include <gtest/gtest.h>

#include <utility>  // before Asio, see connection.h

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/memory_reserve.h"
#include "base/test_allocations.h"
#include "engine/test_engine.h"
#include "server/server.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr char kTemplate[] =
    R"({"chat_template":"{% for m in messages %}{{ m.content }} {% endfor %}"})";

// A served model, as bin has it.
class Served {
 public:
  Served()
      : chat_(ChatTemplates::load(kTemplate, "", "")),
        server_({.host = "127.0.0.1",
                 .port = 0,
                 .model_name = "m",
                 .backend = "fake",
                 .seed_default = 1}),
        engine_thread_([this] { test_.engine.run(); }) {
    server_.serve({.engine = &test_.engine,
                   .tokenizer = &test_.model.tokenizer,
                   .chat = &chat_,
                   .architecture = "llama",
                   .weight_bytes = 1});
  }
  ~Served() {
    test_.engine.stop();
    engine_thread_.join();
    server_.stop();
  }

  uint16_t port() const { return server_.port(); }
  void wait_idle() const {
    for (;;) {
      const EngineSnapshot now = test_.engine.snapshot();
      if (now.running + now.waiting + now.blocks_used == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  TestEngine test_;
  ChatTemplates chat_;
  Server server_;
  std::thread engine_thread_;
};

class Client {
 public:
  Client(uint16_t port, const std::string& request) : socket_(context_) {
    socket_.connect({asio::ip::make_address("127.0.0.1"), port});
    boost::system::error_code ec;
    asio::write(socket_, asio::buffer(request), ec);
  }
  // Everything until the server closes.
  std::string rest() {
    std::string text;
    boost::system::error_code ec;
    asio::read(socket_, asio::dynamic_buffer(text), ec);
    return text;
  }

 private:
  asio::io_context context_;
  tcp::socket socket_;
};

std::string request(const std::string& line, const std::string& body) {
  return line + " HTTP/1.1\r\nHost: w\r\nConnection: close\r\n" +
         (body.empty() ? "\r\n"
                       : "Content-Type: application/json\r\nContent-Length: " +
                             std::to_string(body.size()) + "\r\n\r\n" + body);
}

struct Case {
  const char* name;
  std::string text;
  const char* sign;  // that it was done
};

std::vector<Case> cases() {
  const std::string execute =
      R"({"job_id":"a","prompt":"abc","max_tokens":3,"logprobs":2,"stop":["zz"],"ignore_eos":true})";
  const std::string completion = R"({"model":"m","prompt":"abc","max_tokens":3,"stream":)";
  const std::string chat =
      R"({"model":"m","messages":[{"role":"user","content":"abc"}],"max_tokens":3,"stream":)";
  return {
      {"execute", request("POST /execute", execute), "\"type\":\"end\""},
      {"completion", request("POST /v1/completions", completion + "false}"), "\"usage\""},
      {"streamed completion", request("POST /v1/completions", completion + "true}"), "[DONE]"},
      {"chat", request("POST /v1/chat/completions", chat + "false}"), "\"usage\""},
      {"streamed chat", request("POST /v1/chat/completions", chat + "true}"), "[DONE]"},
      {"tokenize", request("POST /tokenize", R"({"prompt":")" + std::string(40'000, 'a') + "\"}"),
       "\"count\":40000"},
      {"detokenize", request("POST /detokenize", R"({"tokens":[0,1,2]})"), "abc"},
      {"template",
       request("POST /apply-template", R"({"messages":[{"role":"user","content":"abc"}]})"), "abc"},
      {"cancel", request("POST /cancel", R"({"job_id":"never"})"), "NOT_FOUND"},
      {"health", request("GET /health", ""), "\"healthy\""},
      {"metrics", request("GET /metrics", ""), "worker_uptime_seconds"},
  };
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// How an answer was spoilt; "" if it was not.
std::string what_became(const std::string& answer, const Case& wanted) {
  if (contains(answer, "out of memory")) {
    const bool refused = answer.rfind("HTTP/1.1 503 ", 0) == 0;
    const bool in_stream = answer.rfind("HTTP/1.1 200 ", 0) == 0 &&
                           (contains(answer, "VRAM_OOM") || contains(answer, "vram_oom"));
    return refused || in_stream ? "typed" : "untyped: " + answer;
  }
  return contains(answer, wanted.sign) ? "" : "untyped: " + answer;
}

class ServerMemory : public ::testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() {
    start_logging("w", true, Level::kError);
    set_memory_aside(256 * 1024);
  }
};

TEST_P(ServerMemory, AnAllocationThatFailsHurtsOneRequestAtMost) {
  const Case& wanted = GetParam();
  const Case other{"other", request("GET /readyz", ""), "\"ready\""};
  Served served;
  int typed = 0;
  bool happened = true;
  for (int64_t n = 0; happened; ++n) {
    ASSERT_TRUE(refill_memory_reserve());
    std::string first, second;
    {
      const FailAllocation fail(n, FailAllocation::Where::kOtherThreads);
      Client a(served.port(), wanted.text), b(served.port(), other.text);
      first = what_became(a.rest(), wanted);
      second = what_became(b.rest(), other);
      served.wait_idle();
      happened = fail.happened();
    }
    EXPECT_TRUE(first.empty() || second.empty()) << "allocation " << n;
    for (const std::string& hurt : {first, second}) {
      EXPECT_TRUE(hurt.rfind("untyped", 0) != 0) << "allocation " << n << ": " << hurt;
      typed += hurt == "typed";
    }
  }
  EXPECT_EQ(what_became(Client(served.port(), wanted.text).rest(), wanted), "");
  EXPECT_GT(typed, 0);
}

INSTANTIATE_TEST_SUITE_P(, ServerMemory, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
});

}  // namespace
}  // namespace llorch
