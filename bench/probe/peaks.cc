#include "probe/peaks.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <new>
#include <span>
#include <thread>

#include "base/os.h"
#include "base/x86_features.h"
#ifdef LLORCH_PROBE_X86
#include "probe/loops.h"
#endif

namespace llorch::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRuns = 5;

// Seconds that `work(thread)` takes on all of them together.
double time_together(int threads, const std::function<void(int)>& work) {
  std::latch ready(threads + 1), done(threads);
  std::vector<std::jthread> pool;
  pool.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    pool.emplace_back([&, i] {
      ready.arrive_and_wait();
      work(i);
      done.count_down();
    });
  }
  ready.arrive_and_wait();
  const auto start = Clock::now();
  done.wait();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint64_t sum_of(std::span<const uint64_t> words) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= words.size(); i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

#ifdef LLORCH_PROBE_X86
double measure(Loop loop, int threads) {
  constexpr double kSeconds = 0.02;
  int64_t rounds = 1000;
  while (time_together(1, [&](int) { loop(rounds); }) < kSeconds) rounds *= 2;
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<int64_t> operations(static_cast<size_t>(threads));
    const double took =
        time_together(threads, [&](int i) { operations[static_cast<size_t>(i)] = loop(rounds); });
    int64_t sum = 0;
    for (const int64_t part : operations) sum += part;
    best = std::max(best, static_cast<double>(sum) / took);
  }
  return best;
}
#endif

}  // namespace

std::vector<Peak> measure_peaks([[maybe_unused]] int threads) {
  std::vector<Peak> peaks;
#ifdef LLORCH_PROBE_X86
  const X86Features has = x86_features();
  const auto add = [&](bool there, const char* name, Arithmetic arithmetic, Loop loop) {
    if (there) peaks.push_back({name, arithmetic, measure(loop, threads)});
  };
  add(has.avx2, "f32 avx2", Arithmetic::kF32, f32_avx2);
  add(has.avx512, "f32 avx512", Arithmetic::kF32, f32_avx512);
  add(has.avx512_bf16, "bf16 avx512", Arithmetic::kBF16, bf16_avx512);
  add(has.amx_bf16, "bf16 amx", Arithmetic::kBF16, bf16_amx);
  add(has.avx2, "int8 avx2", Arithmetic::kInt8, int8_avx2);
  add(has.avx_vnni, "int8 avx-vnni", Arithmetic::kInt8, int8_avx_vnni);
  add(has.avx512_vnni, "int8 avx512-vnni", Arithmetic::kInt8, int8_avx512_vnni);
  add(has.amx_int8, "int8 amx", Arithmetic::kInt8, int8_amx);
#endif
  return peaks;
}

const Peak* best_peak(const std::vector<Peak>& peaks, Arithmetic arithmetic) {
  const Peak* best = nullptr;
  for (const Peak& peak : peaks) {
    if (peak.arithmetic != arithmetic) continue;
    if (best == nullptr || peak.per_second > best->per_second) best = &peak;
  }
  return best;
}

double measure_reads(int threads, uint64_t bytes) {
  constexpr std::align_val_t kHugePage{size_t{2} << 20};
  const size_t each = bytes / static_cast<size_t>(threads) / 64 * 8;  // words, in whole lines
  const size_t count = each * static_cast<size_t>(threads);
  struct Free {
    void operator()(uint64_t* words) const { ::operator delete(words, kHugePage); }
  };
  const std::unique_ptr<uint64_t[], Free> words(
      static_cast<uint64_t*>(::operator new(count * sizeof(uint64_t), kHugePage)));
  os::prefer_huge_pages(std::as_writable_bytes(std::span(words.get(), count)));
  time_together(threads, [&](int i) {  // each page where its reader is
    std::fill_n(words.get() + static_cast<size_t>(i) * each, each, uint64_t{1});
  });
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const double took = time_together(threads, [&](int i) {
      const uint64_t sum = sum_of({words.get() + static_cast<size_t>(i) * each, each});
      asm volatile("" ::"r"(sum));
    });
    best = std::max(best, static_cast<double>(count * sizeof(uint64_t)) / took);
  }
  return best;
}

}  // namespace llorch::bench
