#include "pool/ready_callback.h"

#include <gtest/gtest.h>

#include <utility>  // before Asio: its headers of this version use std::exchange unseen

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

TEST(CallbackUrl, TakesHostPortPathAndQuery) {
  const CallbackUrl url = parse_callback_url("http://pool.local:9200/v2/ready?x=1#part");
  EXPECT_EQ(url.host, "pool.local");
  EXPECT_EQ(url.port, "9200");
  EXPECT_EQ(url.target, "/v2/ready?x=1");
  EXPECT_EQ(url.authority, "pool.local:9200");
}

TEST(CallbackUrl, FillsInPortAndPath) {
  const CallbackUrl url = parse_callback_url("http://[::1]?a");
  EXPECT_EQ(url.host, "::1");
  EXPECT_EQ(url.port, "80");
  EXPECT_EQ(url.target, "/?a");
  EXPECT_EQ(parse_callback_url("http://10.0.0.1").target, "/");
}

TEST(CallbackUrl, RefusesEverythingButPlainHttpAsABadArgument) {
  for (const char* url : {"https://host/", "ftp://host/", "host:80/x", "http://", "http://:80/",
                          "http://h:0/", "http://h:65536/", "http://h:x/", "http://[::1/",
                          "http://h/a b", "http://u@h/", "http://[::1]x/"}) {
    try {
      parse_callback_url(url);
      ADD_FAILURE() << url;
    } catch (const Error& error) {
      EXPECT_EQ(exit_status(error.code()), 2) << url;
      EXPECT_NE(std::string(error.what()).find(url), std::string::npos);
    }
  }
}

TEST(ReadyMessage, StartsWithTheSeedsKeysInTheirOrder) {
  EXPECT_EQ(to_json({"w-1", 42, "http://localhost:8080", "tiny", "cpu", 42, {"stream"}}),
            R"({"worker_id":"w-1","vram_bytes":42,"uri":"http://localhost:8080",)"
            R"("model_ref":"tiny","backend":"cpu","memory_bytes":42,"capabilities":["stream"]})");
}

TEST(SendReady, SkipsTheTestAddressAndNothing) {
  EXPECT_FALSE(send_ready("http://localhost:9999/callback", {}, {}, {}));
  EXPECT_FALSE(send_ready("", {}, {}, {}));
}

TEST(SendReady, GivesUpOnceStopIsAskedFor) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(send_ready("http://127.0.0.1:1/", {}, {}, stop.get_token()));
}

TEST(SendReady, GivesUpOnAServerThatNeverAnswers) {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor silent(context, {boost::asio::ip::address_v4::loopback(), 0});
  const std::string url =
      "http://127.0.0.1:" + std::to_string(silent.local_endpoint().port()) + "/";
  const CallbackTiming timing{.attempt = std::chrono::milliseconds(50),
                              .first_pause = std::chrono::milliseconds(10),
                              .total = std::chrono::milliseconds(200)};
  try {
    send_ready(url, {}, timing, {});
    FAIL() << "it was answered";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCallbackRefused);
  }
  int attempts = 0;
  for (silent.non_blocking(true);; ++attempts) {
    boost::system::error_code none;
    if (silent.accept(none); none) break;
  }
  EXPECT_GE(attempts, 2);
}

}  // namespace
}  // namespace llorch
