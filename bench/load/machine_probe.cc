#include "load/machine_probe.h"

#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "load/statistics.h"

namespace llorch::bench {
namespace {

using Clock = MachineProbe::Clock;
using namespace std::chrono_literals;

constexpr auto kWakeUp = 2ms, kSample = 1000ms;
constexpr auto kLastSample = 100ms;  // a shorter rest says too little

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

double processor_seconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Processor time of the loop, not time on the wall: what others do on the core shows only in as
// much as it makes the core slower. Best of some, since an interrupt is no property of the core.
double spin_rate() {
  constexpr int kSteps = 100'000;
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    const double begin = processor_seconds(CLOCK_THREAD_CPUTIME_ID);
    uint64_t state = 1;
    for (int i = 0; i < kSteps; ++i) {
      state = state * 6364136223846793005 + 1442695040888963407;
      asm volatile("" : "+r"(state));
    }
    const double took = processor_seconds(CLOCK_THREAD_CPUTIME_ID) - begin;
    best = std::max(best, kSteps / took / 1e6);
  }
  return best;
}

// What has been used until now; the machine's in ticks, the processes' in seconds.
struct Usage {
  double busy = 0, steal = 0, all = 0, worker = 0, own = 0, worker_mb = 0;
};

Usage usage(int pid) {
  Usage out;
  std::ifstream machine("/proc/stat");
  std::string word;
  machine >> word;
  // user nice system idle iowait irq softirq steal
  for (int i = 0; i < 8; ++i) {
    double ticks = 0;
    machine >> ticks;
    out.all += ticks;
    if (i == 7) out.steal = ticks;
    if (i != 3 && i != 4 && i != 7) out.busy += ticks;
  }
  out.own = processor_seconds(CLOCK_PROCESS_CPUTIME_ID);
  if (pid == 0) return out;
  std::ifstream process("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(process)), {});
  // The name may hold anything; after its bracket the fields are counted from 3 on.
  std::istringstream fields(text.substr(std::min(text.rfind(')') + 1, text.size())));
  double user = 0, system = 0, pages = 0;
  for (int i = 3; fields >> word; ++i) {
    if (i == 14) user = std::stod(word);
    if (i == 15) system = std::stod(word);
    if (i == 24) pages = std::stod(word);
  }
  out.worker = (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  out.worker_mb = pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
  return out;
}

MachineSample sample(const Usage& before, const Usage& after, double span,
                     const std::vector<double>& late_ms) {
  const double ticks = std::max(after.all - before.all, 1.0);
  const Quantiles late = quantiles(late_ms);
  return {.late_p99_ms = static_cast<float>(late.p99),
          .late_max_ms = static_cast<float>(late.max),
          .spin_rate = static_cast<float>(spin_rate()),
          .busy_share = static_cast<float>((after.busy - before.busy) / ticks),
          .steal_share = static_cast<float>((after.steal - before.steal) / ticks),
          .worker_cores = static_cast<float>((after.worker - before.worker) / span),
          .own_cores = static_cast<float>((after.own - before.own) / span),
          .worker_mb = static_cast<float>(after.worker_mb)};
}

}  // namespace

MachineProbe::MachineProbe(Clock::time_point start, int pid)
    : start_(start), pid_(pid), thread_([this] { watch(); }) {}

MachineProbe::~MachineProbe() { stop(); }

std::vector<MachineSample> MachineProbe::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  return std::move(samples_);
}

void MachineProbe::watch() {
  Usage before = usage(pid_);
  auto begin = Clock::now();
  std::vector<double> late;
  for (bool last = false; !last;) {
    last = stopping_;
    const auto due = Clock::now() + kWakeUp;
    std::this_thread::sleep_until(due);
    const auto now = Clock::now();
    late.push_back(seconds(now - due) * 1e3);
    if (now - begin < (last ? kLastSample : kSample)) continue;
    const Usage after = usage(pid_);
    samples_.push_back(sample(before, after, seconds(now - begin), late));
    samples_.back().at = seconds(now - start_);
    before = after;
    late.clear();
    begin = Clock::now();
  }
}

}  // namespace llorch::bench
