// For tests: an engine on backend fake with a clock of its own, and events as short texts.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/test_model.h"

namespace llorch {

// Starts at an arbitrary time; any thread.
class TestClock {
 public:
  std::chrono::steady_clock::time_point now() const {
    return std::chrono::steady_clock::time_point(std::chrono::milliseconds(ms_));
  }
  void advance(std::chrono::milliseconds by) { ms_ += by.count(); }

 private:
  std::atomic<int64_t> ms_{1'000'000};
};

class TestEngine {
 public:
  // Context 256 unless given; `now` becomes the test's clock.
  explicit TestEngine(EngineOptions options = {}, TestKind kind = TestKind::kPlain);

  std::shared_ptr<Reader> submit(Request request) { return engine.submit(std::move(request), {}); }
  void run_until_idle() {
    while (engine.step()) {
    }
  }

  TestClock clock;
  TestModel model;
  Engine engine;
};

// Greedy, without logprobs.
Request test_request(std::string job_id, std::string_view prompt, int32_t max_tokens);

std::vector<Event> all_events(Reader& reader);
// Joined by spaces: started(prompt tokens), token(text), token(text,id,logprob,[id:logprob ...]),
// metrics(rate), end(MAX_TOKENS,tokens out), end(STOP_SEQUENCE,tokens out,sequence),
// failed(code,retriable).
std::string described(const std::vector<Event>& events);
inline std::string described(Reader& reader) { return described(all_events(reader)); }

}  // namespace llorch
