// The limits that no flag of the worker sets, on a server that is still loading. What a served
// model adds is tested against the real binary, in tests/contract.
#include "server/server.h"

#include <gtest/gtest.h>

#include <utility>  // before Asio, see connection.h

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;

ServerOptions options() {
  return {.host = "127.0.0.1",
          .port = 0,
          .model_name = "m",
          .backend = "fake",
          .seed_default = {},
          .read_timeout = 100ms};
}

class Client {
 public:
  explicit Client(uint16_t port) : socket_(context_) {
    socket_.connect({asio::ip::make_address("127.0.0.1"), port});
  }
  void send(const std::string& text) { asio::write(socket_, asio::buffer(text)); }
  void send_end() { socket_.shutdown(tcp::socket::shutdown_send); }
  // Everything until the server closes.
  std::string rest() {
    std::string text;
    boost::system::error_code ec;
    asio::read(socket_, asio::dynamic_buffer(text), ec);
    return text;
  }
  // The status line of one answer whose body has `body` bytes at least; leaves the rest.
  std::string answer(const std::string& request) {
    send(request);
    std::string text;
    while (text.find("}") == std::string::npos) {
      char piece[512];
      text.append(piece, socket_.read_some(asio::buffer(piece)));
    }
    return text;
  }

 private:
  asio::io_context context_;
  tcp::socket socket_;
};

constexpr char kLive[] = "GET /livez HTTP/1.1\r\nHost: w\r\n\r\n";

bool has_status(const std::string& text, int status) {
  return text.rfind("HTTP/1.1 " + std::to_string(status) + " ", 0) == 0;
}

TEST(Server, AnswersLivezAloneWhileLoading) {
  Server server(options());
  Client client(server.port());
  EXPECT_TRUE(has_status(client.answer(kLive), 200));
  for (const char* line : {"POST /execute", "GET /readyz", "POST /shutdown", "POST /cancel",
                           "GET /health", "GET /nope", "DELETE /execute"}) {
    const std::string text = client.answer(std::string(line) + " HTTP/1.1\r\nHost: w\r\n\r\n");
    EXPECT_TRUE(has_status(text, 503)) << text;
    if (std::string(line) == "GET /health") {
      EXPECT_NE(text.find(R"({"status":"unhealthy","vram_bytes":0,"model":"m")"), text.npos);
      EXPECT_NE(text.find(R"("reason":"loading"})"), text.npos);
    } else {
      EXPECT_NE(text.find(R"({"code":"LOADING")"), text.npos);
      EXPECT_NE(text.find("retry-after: "), text.npos);
    }
  }
}

TEST(Server, ClosesAConnectionThatStaysIdle) {
  Server server(options());
  Client client(server.port());
  EXPECT_EQ(client.rest(), "");
}

TEST(Server, EndsASlowHeadWithATypedAnswer) {
  Server server(options());
  Client client(server.port());
  client.send("GET /livez HTTP/1.1\r\nHost:");
  const std::string text = client.rest();
  EXPECT_TRUE(has_status(text, 408)) << text;
  EXPECT_NE(text.find("REQUEST_TIMEOUT"), text.npos);
  EXPECT_NE(text.find("x-correlation-id: "), text.npos);
}

TEST(Server, EndsASlowBodyWithATypedAnswer) {
  Server server(options());
  Client client(server.port());
  client.send("POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\n{");
  EXPECT_TRUE(has_status(client.rest(), 408));
}

TEST(Server, EndsAHalfSentRequestWhoseClientHasClosed) {
  Server server(options());
  Client head(server.port()), body(server.port());
  head.send("GET /livez HT");
  head.send_end();
  EXPECT_TRUE(has_status(head.rest(), 400));
  body.send("POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\n{");
  body.send_end();
  EXPECT_TRUE(has_status(body.rest(), 400));
}

TEST(Server, TurnsAwayConnectionsBeyondItsLimit) {
  ServerOptions two = options();
  two.max_connections = 2;
  two.read_timeout = 60s;
  Server server(two);
  Client a(server.port());
  EXPECT_TRUE(has_status(a.answer(kLive), 200));
  {
    Client b(server.port());
    EXPECT_TRUE(has_status(b.answer(kLive), 200));
    Client c(server.port());
    const std::string text = c.rest();
    EXPECT_TRUE(has_status(text, 429)) << text;
    EXPECT_NE(text.find("OVERLOADED"), text.npos);
    b.send("GET /livez HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n");
    EXPECT_TRUE(has_status(b.rest(), 200));
  }
  EXPECT_TRUE(has_status(a.answer(kLive), 200));
}

TEST(Server, ClosesAConnectionThatTakesNothing) {
  ServerOptions impatient = options();
  impatient.read_timeout = 600s;
  impatient.write_timeout = 100ms;
  Server server(impatient);
  Client greedy(server.port()), other(server.port());
  std::string many;
  for (int i = 0; i < 1000; ++i) many += kLive;
  // Each is answered, until the answers fill the sockets: then no more is read, and the end comes.
  EXPECT_THROW(
      {
        for (;;) greedy.send(many);
      },
      boost::system::system_error);
  EXPECT_TRUE(has_status(other.answer(kLive), 200));
}

TEST(Server, StopsWithOpenConnections) {
  ServerOptions patient = options();
  patient.read_timeout = 600s;
  patient.threads = 2;
  Server server(patient);
  Client idle(server.port()), half(server.port());
  EXPECT_TRUE(has_status(idle.answer(kLive), 200));
  half.send("GET /livez HTTP/1.1\r\nHos");
  server.stop();
  EXPECT_EQ(idle.rest(), "");
}

TEST(Server, SaysWhyItCannotListen) {
  Server first(options());
  ServerOptions same = options();
  same.port = first.port();
  try {
    Server second(same);
    FAIL() << "bound twice";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kPortInUse);
    EXPECT_NE(std::string(e.what()).find("127.0.0.1:" + std::to_string(same.port)),
              std::string::npos);
  }
}

TEST(Server, ListensOnIpv6) {
  ServerOptions six = options();
  six.host = "::1";
  try {
    EXPECT_NE(Server(six).port(), 0);
  } catch (const Error& e) {
    GTEST_SKIP() << "no IPv6 here: " << e.what();
  }
}

}  // namespace
}  // namespace llorch
