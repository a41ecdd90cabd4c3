// Health and metrics take no lock at all, so nobody who holds one can keep them waiting: neither a
// step that hangs nor a thread that stops in the middle of a submit. A step takes few.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <string>
#include <thread>

#include "engine/test_engine.h"
#include "server/api.h"

namespace {

thread_local int locks_taken = 0, locks_held = 0;

using MutexCall = int (*)(pthread_mutex_t*);
MutexCall library(const char* name) { return reinterpret_cast<MutexCall>(dlsym(RTLD_NEXT, name)); }

}  // namespace

// In place of the C library's, for everything in this program.
extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  static const MutexCall lock = library("pthread_mutex_lock");
  ++locks_taken;
  const int result = lock(mutex);
  ++locks_held;
  return result;
}
extern "C" int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  static const MutexCall unlock = library("pthread_mutex_unlock");
  --locks_held;
  return unlock(mutex);
}

namespace llorch {
namespace {

class LockFree : public ::testing::Test {
 protected:
  LockFree()
      : model_(256),
        engine_(model_.backend, model_.model, model_.tokenizer,
                {.context = 256, .max_batch = 2, .now = [this] { return now(); }}),
        api_({.model_name = "m", .backend = "fake", .seed_default = {}}, connections_) {
    api_.serve({.engine = &engine_,
                .tokenizer = &model_.tokenizer,
                .chat = nullptr,
                .architecture = "llama",
                .weight_bytes = 1});
  }

  // The engine asks for the time in steps, submits and snapshots.
  std::chrono::steady_clock::time_point now() {
    if (stops_here && stops_here()) {
      stops_here = nullptr;
      stopped_.count_down();
      goes_on_.wait();
    }
    return std::chrono::steady_clock::time_point(std::chrono::milliseconds(ms_));
  }

  void open(const char* job) { streams_.push_back(engine_.submit(test_request(job, "ab", 9), {})); }

  std::string get(std::string_view path) {
    RequestHead head;
    head.method = "GET";
    head.path = path;
    EXPECT_FALSE(api_.check(head));
    return std::get<Reply>(api_.handle(head, "", {})).body;
  }

  void expect_no_locks() {
    const int before = locks_taken;
    const EngineSnapshot snapshot = engine_.snapshot();
    const std::string health = get("/health"), metrics = get("/metrics"), live = get("/livez"),
                      ready = get("/readyz");
    EXPECT_EQ(locks_taken, before);
    EXPECT_EQ(snapshot.running + snapshot.waiting, static_cast<int>(streams_.size()));
    EXPECT_NE(health.find("\"status\":"), health.npos);
    EXPECT_NE(metrics.find("vllm:num_requests_running"), metrics.npos);
  }

  static thread_local std::function<bool()>
      stops_here;  // asked whenever this thread wants the time
  std::atomic<int64_t> ms_{1'000'000};
  std::latch stopped_{1}, goes_on_{1};
  TestModel model_;
  Engine engine_;
  std::atomic<int> connections_{0};
  Api api_;
  std::vector<std::shared_ptr<Reader>> streams_;
};

thread_local std::function<bool()> LockFree::stops_here;

TEST_F(LockFree, IsCountedHere) {
  const int before = locks_taken;
  open("a");
  EXPECT_GT(locks_taken, before);
  EXPECT_EQ(locks_held, 0);
}

TEST_F(LockFree, AtRestAndAtWork) {
  expect_no_locks();
  for (const char* job : {"a", "b", "c"}) open(job);
  expect_no_locks();
  engine_.step();
  expect_no_locks();
}

TEST_F(LockFree, WhileASubmitStopsWithALockHeld) {
  open("a");
  std::thread submitter([&] {
    stops_here = [] { return locks_held > 0; };
    EXPECT_NO_THROW(engine_.submit(test_request("b", "ab", 9), {}));
    if (!stops_here) return;
    ADD_FAILURE() << "no lock was held when it asked for the time";
    stopped_.count_down();
  });
  stopped_.wait();
  expect_no_locks();
  goes_on_.count_down();
  submitter.join();
}

TEST_F(LockFree, WhileAStepHangs) {
  open("a");
  engine_.step();
  std::thread stepper([&] {
    stops_here = [] { return true; };
    engine_.step();
  });
  stopped_.wait();
  ms_ += 3'600'000;
  expect_no_locks();
  EXPECT_NE(get("/health").find(R"("reason":"stalled")"), std::string::npos);
  goes_on_.count_down();
  stepper.join();
}

// What a decoding step of so many streams takes, each with a reader that waits for its events.
int locks_of_a_step(int streams) {
  TestEngine test({.max_batch = streams});
  std::vector<std::shared_ptr<Reader>> readers;
  for (int i = 0; i < streams; ++i) {
    readers.push_back(test.engine.submit(test_request(std::to_string(i), "ab", 9), [] {}));
  }
  test.engine.step();
  for (const auto& reader : readers) all_events(*reader);
  const int before = locks_taken;
  test.engine.step();
  const int taken = locks_taken - before;
  for (const auto& reader : readers) EXPECT_EQ(described(*reader), "token(d)");
  return taken;
}

// For a stream: to push the event, to take the one reader that is to be woken, and to see that
// there is no other.
TEST(Locks, AStepTakesThreeForAStream) {
  const int alone = locks_of_a_step(1);
  EXPECT_LE(locks_of_a_step(16) - alone, 15 * 3);
  EXPECT_LE(alone, 3 + 3);
}

}  // namespace
}  // namespace llorch
