// The engine among threads: many submitters, cancels from everywhere, one reader of figures. Run
// under the thread sanitizer too.
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "base/error.h"
#include "engine/test_engine.h"

namespace llorch {
namespace {

// Blocks a reader until its stream has an event.
class Bell {
 public:
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    condition_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    condition_.wait(lock, [&] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool rung_ = false;
};

// Reads one stream to its terminal event; calls `each` after every event.
Event read_to_end(Reader& stream, Bell& bell, const std::function<void()>& each) {
  for (;;) {
    while (auto event = stream.next()) {
      if (is_terminal(*event)) return *event;
      each();
    }
    bell.wait();
  }
}

// An engine on a thread of its own, which makes and destroys it.
class RunningEngine {
 public:
  explicit RunningEngine(const EngineOptions& options)
      : thread_([this, options] {
          TestEngine test(options);
          test.engine.warm_up();
          ready_.set_value(&test.engine);
          test.engine.run();
          done_.get_future().wait();
        }),
        engine_(ready_.get_future().get()) {}
  ~RunningEngine() {
    engine_->stop();
    done_.set_value();
    thread_.join();
  }
  Engine& operator*() { return *engine_; }
  Engine* operator->() { return engine_; }

 private:
  std::promise<Engine*> ready_;
  std::promise<void> done_;
  std::thread thread_;
  Engine* engine_;
};

struct Tally {
  std::atomic<int> ended{0}, cancelled{0}, refused{0};
};

void submit_many(Engine& engine, uint32_t seed, int jobs, Tally& tally) {
  std::mt19937 random(seed);
  for (int i = 0; i < jobs; ++i) {
    const std::string id = std::to_string(seed) + "-" + std::to_string(i);
    Request request = test_request(id, "once upon a time", 1 + static_cast<int32_t>(random() % 40));
    request.ignore_eos = true;
    const auto bell = std::make_shared<Bell>();
    std::shared_ptr<Reader> stream;
    try {
      stream = engine.submit(request, [bell] { bell->ring(); });
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOverloaded);
      ++tally.refused;
      continue;
    }
    auto countdown = static_cast<int>(random() % 20);
    const auto how = static_cast<int>(random() % 3);
    const Event last = read_to_end(*stream, *bell, [&] {
      if (countdown-- != 0) return;
      if (how == 0) stream->leave();
      if (how == 1) {
        EXPECT_TRUE(engine.cancel(id));
      }
    });
    if (const auto* failed = std::get_if<FailedEvent>(&last)) {
      EXPECT_STREQ(failed->code, "CANCELLED");
      EXPECT_NE(how, 2);
      ++tally.cancelled;
    } else {
      EXPECT_EQ(std::get<EndEvent>(last).tokens_out, request.max_tokens);
      ++tally.ended;
    }
  }
}

TEST(EngineThreads, ServesManySubmittersAtOnce) {
  RunningEngine engine({.max_batch = 3, .max_queue = 4, .step_tokens = 10, .kv_bytes = 16 * 1024});
  Tally tally;
  std::atomic<bool> watching{true};
  std::thread watcher([&] {
    while (watching) {
      const EngineSnapshot s = engine->snapshot();
      EXPECT_LE(s.running, 3);
      EXPECT_LE(s.blocks_used, s.blocks_total);
      EXPECT_FALSE(s.failed);
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> submitters;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    submitters.emplace_back([&, seed] { submit_many(*engine, seed, 40, tally); });
  }
  for (std::thread& thread : submitters) thread.join();
  watching = false;
  watcher.join();
  EXPECT_EQ(tally.ended + tally.cancelled + tally.refused, 240);
  EXPECT_GT(tally.ended, 0);
  EXPECT_GT(tally.cancelled, 0);
  engine->start_drain();
  EXPECT_TRUE(engine->wait_drained(std::chrono::steady_clock::now() + std::chrono::minutes(1)));
  const EngineSnapshot s = engine->snapshot();
  EXPECT_EQ(s.running + s.waiting + s.blocks_used, 0);
}

// One client of many that ask for the same jobs, and leave or cancel as they like. Each reader sees
// one stream, whole up to its end, whatever the others do.
void repeat_many(Engine& engine, uint32_t seed, int jobs, Tally& tally) {
  std::mt19937 random(seed);
  for (int i = 0; i < jobs; ++i) {
    const std::string id = std::to_string(i);
    Request request = test_request(id, "once upon a time", 1 + i % 12);
    request.ignore_eos = true;
    request.fingerprint = "body";
    request.resumable = i % 3 == 0;
    const auto bell = std::make_shared<Bell>();
    const std::shared_ptr<Reader> reader = engine.submit(request, [bell] { bell->ring(); });
    auto countdown = static_cast<int>(random() % 24);
    const auto how = static_cast<int>(random() % 8);
    uint64_t events = 0;
    const Event last = read_to_end(*reader, *bell, [&] {
      EXPECT_EQ(reader->position(), ++events);
      if (countdown-- != 0) return;
      if (how == 0) reader->leave();
      if (how == 1) engine.cancel(id);
      if (how == 2) engine.expire();
    });
    EXPECT_FALSE(reader->next());
    if (const auto* end = std::get_if<EndEvent>(&last)) {
      EXPECT_EQ(end->tokens_out, request.max_tokens);
      EXPECT_GE(events, 2u);
      ++tally.ended;
    } else {
      EXPECT_STREQ(std::get<FailedEvent>(last).code, "CANCELLED");
      ++tally.cancelled;
    }
  }
}

TEST(EngineThreads, RepeatsMeetEndsAndCancels) {
  // Room for a few answers only, so that they give way while others replay them.
  RunningEngine engine({.max_batch = 3, .step_tokens = 10, .retained_bytes = 16 * 1024});
  Tally tally;
  std::vector<std::thread> clients;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    clients.emplace_back([&, seed] { repeat_many(*engine, seed, 200, tally); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(tally.ended + tally.cancelled, 1200);
  EXPECT_GT(tally.ended, 0);
  EXPECT_GT(tally.cancelled, 0);
  // Jobs that are resumable go on without readers, to their end.
  engine->start_drain();
  EXPECT_TRUE(engine->wait_drained(std::chrono::steady_clock::now() + std::chrono::minutes(1)));
  const EngineSnapshot s = engine->snapshot();
  EXPECT_EQ(s.running + s.waiting + s.blocks_used, 0);
  EXPECT_LT(engine->metrics().tokens_in.value(), 1200u * 16);
}

TEST(EngineThreads, AnIdleEngineWakesForASubmitAndForStop) {
  RunningEngine engine({});
  for (int i = 0; i < 50; ++i) {
    Bell bell;
    const auto stream = engine->submit(test_request("job", "a", 2), [&bell] { bell.ring(); });
    EXPECT_TRUE(std::holds_alternative<EndEvent>(read_to_end(*stream, bell, [] {})));
    // The job id must be free, and the ring is over, only once nothing is open.
    ASSERT_TRUE(engine->wait_drained(std::chrono::steady_clock::now() + std::chrono::minutes(1)));
  }
}

TEST(EngineThreads, StopEndsAllStreamsAndRefusesAfterwards) {
  RunningEngine engine({.max_batch = 2});
  std::vector<std::shared_ptr<Reader>> streams;
  std::vector<std::unique_ptr<Bell>> bells;
  for (int i = 0; i < 8; ++i) {
    bells.push_back(std::make_unique<Bell>());
    Request request = test_request("job" + std::to_string(i), "a", 250);
    request.ignore_eos = true;
    streams.push_back(engine->submit(request, [bell = bells.back().get()] { bell->ring(); }));
  }
  engine->stop();
  for (size_t i = 0; i < streams.size(); ++i) {
    const Event last = read_to_end(*streams[i], *bells[i], [] {});
    if (const auto* failed = std::get_if<FailedEvent>(&last)) {
      EXPECT_STREQ(failed->code, "CANCELLED");
      EXPECT_TRUE(failed->retriable);
    }
  }
  EXPECT_TRUE(engine->wait_drained(std::chrono::steady_clock::now() + std::chrono::minutes(1)));
  EXPECT_THROW(engine->submit(test_request("late", "a", 1), {}), Error);
}

}  // namespace
}  // namespace llorch
