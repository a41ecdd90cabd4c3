#include "load/run.h"

#include <utility>  // before Asio, see client.h

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>

#include "load/client.h"
#include "load/machine_probe.h"
#include "load/path_probe.h"

namespace llorch::bench {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

// Probes and the first arrivals are ready by then.
constexpr auto kLead = 100ms;

class Load {
 public:
  explicit Load(const Options& options)
      : options_(options),
        clock_(RunClock::Clock::now() + kLead),
        workload_(options.workload),
        client_(options_, clock_),
        run_id_(std::to_string(std::random_device{}())) {}

  RunResult run() {
    MachineProbe machine(clock_.start(), options_.pid);
    PathProbe path(options_, clock_);
    if (options_.concurrency > 0) {
      for (int i = 0; i < options_.concurrency; ++i) spawn(closed_loop());
    } else {
      spawn(open_loop());
    }
    context_.run();
    result_.seconds = clock_.now();
    result_.monotonic_start =
        std::chrono::duration<double>(clock_.start().time_since_epoch()).count();
    result_.path = path.stop();
    result_.machine = machine.stop();
    return std::move(result_);
  }

 private:
  void spawn(Task<void> task) {
    // What a task throws ends the run: it is a fault of ours.
    asio::co_spawn(context_, std::move(task), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }

  Task<void> sleep_until(double at) {
    if (clock_.now() >= at) co_return;
    boost::system::error_code ignored;
    asio::steady_timer timer(context_);
    timer.expires_at(clock_.at(at));
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }

  // False when no more conversations begin.
  bool begins(double at) const {
    return (options_.requests == 0 || next_ < options_.requests) &&
           (options_.duration_s <= 0 || at < options_.duration_s);
  }

  Task<void> open_loop() {
    Arrivals arrivals(options_.arrivals, options_.rate, options_.workload.seed);
    for (double at = arrivals.next(); begins(at); at = arrivals.next()) {
      co_await sleep_until(at);
      result_.longest_late_s = std::max(result_.longest_late_s, clock_.now() - at);
      spawn(converse(next_++, at));
    }
  }

  Task<void> closed_loop() {
    co_await sleep_until(0);
    for (double at = 0; begins(at); at = clock_.now()) co_await converse(next_++, at);
  }

  Task<void> converse(uint64_t index, double at) {
    const Conversation turns = workload_.conversation(index);
    Random random(options_.workload.seed ^ (index * 0x9E3779B97F4A7C15));
    std::string history;
    for (size_t i = 0; i < turns.size(); ++i) {
      if (i > 0) {
        at = clock_.now();
        if (options_.think_s > 0) {
          at += std::exponential_distribution<>(1 / options_.think_s)(random);
        }
        co_await sleep_until(at);
      }
      history += turns[i].text;
      Call call{.job_id = "load-" + run_id_ + "-" + std::to_string(index) + "-" + std::to_string(i),
                .prompt = history,
                .seed = random() >> 1,  // what any server takes
                .scheduled = at,
                .turn = turns[i],
                .keep_text = i + 1 < turns.size()};
      const auto request = static_cast<uint32_t>(requests_++);
      Answer answer = co_await client_.generate(std::move(call), [this, request](double when,
                                                                                 double seconds) {
        result_.gaps.push_back({static_cast<float>(when), static_cast<float>(seconds), request});
      });
      answer.record.turn = static_cast<int>(i);
      history += answer.text;
      const bool goes_on = answer.record.outcome == Outcome::kOk;
      result_.records.push_back(std::move(answer.record));
      if (!goes_on) co_return;
    }
  }

  const Options& options_;
  const RunClock clock_;
  const Workload workload_;
  const Client client_;
  const std::string run_id_;  // a job id that a run before had would be answered from its store
  asio::io_context context_{1};
  uint64_t next_ = 0, requests_ = 0;
  RunResult result_;
};

}  // namespace

RunResult run_load(const Options& options) { return Load(options).run(); }

}  // namespace llorch::bench
