// What it costs to look: times of a snapshot, of a scrape's text, and of counting one observation,
// on an engine with the fake backend whose histograms have been filled.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "base/os.h"
#include "engine/test_engine.h"
#include "server/metrics_text.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

double ns_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::nano>(to - from).count();
}

// Prints median, p99 and the worst of `samples` samples, each the mean of `repeats` calls.
template <class Call>
void time(const char* what, int samples, int repeats, Call call) {
  std::vector<double> times;
  for (int i = 0; i < samples; ++i) {
    const auto begin = Clock::now();
    for (int j = 0; j < repeats; ++j) call();
    times.push_back(ns_between(begin, Clock::now()) / repeats);
  }
  std::sort(times.begin(), times.end());
  std::printf("%-12s p50 %10.0f ns   p99 %10.0f ns   max %10.0f ns\n", what,
              times[times.size() / 2], times[times.size() * 99 / 100], times.back());
}

int run() {
  TestModel model(8192);
  Engine engine(model.backend, model.model, model.tokenizer, {.context = 8192});
  std::vector<std::shared_ptr<Reader>> streams;
  for (int i = 0; i < 200; ++i) {
    Request request = test_request("job" + std::to_string(i), std::string(1 + i * 20, 'a'), 50);
    request.ignore_eos = true;
    streams.push_back(engine.submit(std::move(request), {}));
  }
  while (engine.step()) {
  }
  streams.push_back(engine.submit(test_request("open", "ab", 50), {}));
  engine.step();

  int running = 0;
  size_t bytes = 0;
  time("snapshot", 1000, 1000, [&] { running += engine.snapshot().running; });
  time("scrape", 10000, 1, [&] {
    const uint64_t resident = os::resident_bytes();
    bytes = metrics_text(engine, {.model_name = "tiny", .resident_bytes = resident}).size();
  });
  EngineMetrics metrics(8192);
  time("observe", 1000, 1000, [&] { metrics.inter_token_latency.observe(0.03); });
  std::printf("a scrape has %zu bytes\n", bytes);
  return running > 0 ? 0 : 1;
}

}  // namespace
}  // namespace llorch

int main() { return llorch::run(); }
