// Fibers for the threads of a block. Knows no kernel.
#include "backends/cuda/emulated/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/emulated/fiber.h"
#include "ops/dtype.h"

namespace llorch::cuda::emulated {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 128 << 10;
constexpr int kWords = 8;  // that a lane brings to what its warp does together

[[noreturn]] void stop(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::abort();
}

struct AsyncCopy {
  std::byte* to;
  const std::byte* from;  // null: zeros
  int group;
};

enum class State { kReady, kAtWarp, kAtBlock, kEnded };

struct Thread {
  Fiber fiber;
  State state = State::kEnded;
  Index thread;
  int lane = 0;
  std::vector<AsyncCopy> copies;
  int group = 0;  // of the copies that come next
};

struct Warp {
  uint32_t words[kWarp][kWords];
  float floats[kWarp][4];
  const void* pointers[kWarp];
  int first = 0;  // thread of lane 0
  int arrived = 0;
};

// The one block that this host thread runs.
class Runner {
 public:
  BlockView view;

  void run(const Launch& launch, void (*kernel)(const void*), const void* params);
  const Index& thread_index() const { return threads_[current_].thread; }
  Thread& thread() { return threads_[current_]; }
  Warp& warp() { return warps_[current_ / kWarp]; }

  // The last lane to come does it for all.
  template <class Action>
  void together(Action action) {
    Warp& w = warp();
    if (++w.arrived < kWarp) {
      wait(State::kAtWarp);
      return;
    }
    action(w);
    w.arrived = 0;
    for (int lane = 0; lane < kWarp; ++lane) {
      threads_[static_cast<size_t>(w.first + lane)].state = State::kReady;
    }
  }

  void sync_block() {
    ++at_barrier_;
    if (at_barrier_ < alive_) {
      wait(State::kAtBlock);
    } else {
      open_barrier();
    }
  }

 private:
  void prepare(const Launch& launch);
  void start(size_t i);
  void run_block();
  void open_barrier() {
    at_barrier_ = 0;
    for (Thread& f : threads_) {
      if (f.state == State::kAtBlock) f.state = State::kReady;
    }
  }
  void wait(State why) {
    Thread& f = threads_[current_];
    f.state = why;
    Fiber::change(f.fiber, main_);
  }
  void thread_main() {
    kernel_(params_);
    Thread& f = threads_[current_];
    if (!f.copies.empty()) stop("a thread ended before its asynchronous copies were waited for");
    f.state = State::kEnded;
    --alive_;
    if (alive_ > 0 && at_barrier_ == alive_) open_barrier();
    Fiber::change(f.fiber, main_);
  }

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::byte* stacks_ = nullptr;
  size_t stack_count_ = 0;
  std::vector<std::byte> shared_memory_;
  Fiber main_;
  size_t current_ = 0;
  int alive_ = 0, at_barrier_ = 0;
  void (*kernel_)(const void*) = nullptr;
  const void* params_ = nullptr;
  std::vector<size_t> warp_order_, lane_order_;
  std::mt19937 random_;
  bool shuffled_ = false;
};

thread_local Runner runner;

void Runner::prepare(const Launch& launch) {
  const size_t threads = size_t{launch.block.x} * launch.block.y * launch.block.z;
  if (threads == 0 || threads % kWarp != 0 || threads > 1024) stop("a block is of no whole warps");
  if (launch.shared_bytes > 227 << 10) stop("more shared memory than a block can have");
  if (stack_count_ < threads) {
    if (stacks_) munmap(stacks_, stack_count_ * kStackBytes);
    void* const memory = mmap(nullptr, threads * kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) stop("no memory for stacks");
    stacks_ = static_cast<std::byte*>(memory);
    stack_count_ = threads;
  }
  threads_.resize(threads);
  warps_.resize(threads / kWarp);
  for (size_t i = 0; i < threads; ++i) {
    Thread& f = threads_[i];
    f.lane = static_cast<int>(i % kWarp);
    const auto at = static_cast<uint32_t>(i);
    f.thread = {at % launch.block.x, at / launch.block.x % launch.block.y,
                at / launch.block.x / launch.block.y};
  }
  for (size_t i = 0; i < warps_.size(); ++i) warps_[i].first = static_cast<int>(i) * kWarp;
  warp_order_.resize(warps_.size());
  lane_order_.resize(kWarp);
  std::iota(warp_order_.begin(), warp_order_.end(), size_t{0});
  std::iota(lane_order_.begin(), lane_order_.end(), size_t{0});
  const char* const order = std::getenv("LLORCH_EMULATED_ORDER");
  shuffled_ = false;
  if (order && std::strcmp(order, "backward") == 0) {
    std::reverse(warp_order_.begin(), warp_order_.end());
    std::reverse(lane_order_.begin(), lane_order_.end());
  } else if (order && std::strcmp(order, "forward") != 0) {
    random_.seed(static_cast<uint32_t>(std::atoi(order)));
    shuffled_ = true;
  }
  // Shared memory holds NaNs at first: what is read was written.
  shared_memory_.assign(launch.shared_bytes + 64, std::byte{0xff});
  const auto address = reinterpret_cast<uintptr_t>(shared_memory_.data());
  view.shared = shared_memory_.data() + (64 - address % 64) % 64;
  view.dim = launch.block;
  view.grid = launch.grid;
}

void Runner::run(const Launch& launch, void (*kernel)(const void*), const void* params) {
  kernel_ = kernel;
  params_ = params;
  prepare(launch);
  for (uint32_t z = 0; z < launch.grid.z; ++z) {
    for (uint32_t y = 0; y < launch.grid.y; ++y) {
      for (uint32_t x = 0; x < launch.grid.x; ++x) {
        view.index = {x, y, z};
        run_block();
      }
    }
  }
}

void Runner::start(size_t i) {
  Thread& f = threads_[i];
  const auto body = [](void* self) { static_cast<Runner*>(self)->thread_main(); };
  f.fiber.start(stacks_ + i * kStackBytes, kStackBytes, body, this);
  f.state = State::kReady;
  f.copies.clear();
  f.group = 0;
}

void Runner::run_block() {
  std::fill(shared_memory_.begin(), shared_memory_.end(), std::byte{0xff});
  for (size_t i = 0; i < threads_.size(); ++i) start(i);
  for (Warp& w : warps_) w.arrived = 0;
  alive_ = static_cast<int>(threads_.size());
  at_barrier_ = 0;
  while (alive_ > 0) {
    if (shuffled_) std::shuffle(warp_order_.begin(), warp_order_.end(), random_);
    bool moved = false;
    for (const size_t w : warp_order_) {
      if (shuffled_) std::shuffle(lane_order_.begin(), lane_order_.end(), random_);
      // As far as the warp gets alone.
      for (bool again = true; again;) {
        again = false;
        for (const size_t lane : lane_order_) {
          current_ = w * kWarp + lane;
          if (threads_[current_].state != State::kReady) continue;
          Fiber::change(main_, threads_[current_].fiber);
          again = moved = true;
        }
      }
    }
    if (!moved) stop("not all threads reach a barrier, or not all lanes what their warp does");
  }
}

}  // namespace

void run(const Launch& launch, void (*kernel)(const void*), const void* params) {
  runner.run(launch, kernel, params);
}

const BlockView& block() { return runner.view; }
const Index& thread_index() { return runner.thread_index(); }
void sync_block() { runner.sync_block(); }
void sync_warp() {
  runner.together([](Warp&) {});
}

uint32_t shuffle(uint32_t v, int lane) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  w.words[self][0] = v;
  w.words[self][1] = static_cast<uint32_t>(lane) % kWarp;
  runner.together([](Warp& all) {
    for (auto& words : all.words) words[2] = all.words[words[1]][0];
  });
  return w.words[self][2];
}

uint32_t shuffle_xor(uint32_t v, int mask) { return shuffle(v, runner.thread().lane ^ mask); }

uint32_t ballot(bool v) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  w.words[self][0] = v;
  runner.together([](Warp& all) {
    uint32_t votes = 0;
    for (int lane = 0; lane < kWarp; ++lane) votes |= all.words[lane][0] << lane;
    for (auto& words : all.words) words[2] = votes;
  });
  return w.words[self][2];
}

uint32_t warp_max(uint32_t v) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  w.words[self][0] = v;
  runner.together([](Warp& all) {
    uint32_t most = 0;
    for (const auto& words : all.words) most = std::max(most, words[0]);
    for (auto& words : all.words) words[2] = most;
  });
  return w.words[self][2];
}

uint32_t equal_lanes(uint32_t v) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  w.words[self][0] = v;
  runner.together([](Warp& all) {
    for (auto& words : all.words) {
      words[2] = 0;
      for (int lane = 0; lane < kWarp; ++lane) {
        words[2] |= uint32_t{all.words[lane][0] == words[0]} << lane;
      }
    }
  });
  return w.words[self][2];
}

uint64_t warp_prefix_sum(uint64_t v) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  std::memcpy(w.words[self], &v, sizeof(v));
  runner.together([](Warp& all) {
    uint64_t sum = 0, each = 0;
    for (auto& words : all.words) {
      std::memcpy(&each, words, sizeof(each));
      sum += each;
      std::memcpy(words, &sum, sizeof(sum));
    }
  });
  std::memcpy(&v, w.words[self], sizeof(v));
  return v;
}

void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float (*widen)(uint16_t)) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  std::copy_n(a, 4, w.words[self]);
  std::copy_n(b, 2, w.words[self] + 4);
  std::copy_n(c, 4, w.floats[self]);
  runner.together([widen](Warp& all) {
    // Products are exact in f32; the sum is as close to what tensor cores do as is known.
    const auto product = [widen](uint32_t left, uint32_t right, int shift) {
      return double{widen(static_cast<uint16_t>(left >> shift)) *
                    widen(static_cast<uint16_t>(right >> shift))};
    };
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i / 2) * 8, column = lane % 4 * 2 + i % 2;
        const uint32_t(*const from_a)[kWords] = &all.words[row % 8 * 4];
        const uint32_t(*const from_b)[kWords] = &all.words[column * 4];
        double sum = double{all.floats[lane][i]};
        for (int half = 0; half < 2; ++half) {
          for (int t = 0; t < 4; ++t) {
            const uint32_t left = from_a[t][row / 8 + 2 * half], right = from_b[t][4 + half];
            sum += product(left, right, 0) + product(left, right, 16);
          }
        }
        all.floats[lane][i] = static_cast<float>(sum);
      }
    }
  });
  std::copy_n(w.floats[self], 4, c);
}

void load_matrix(uint32_t* r, int count, const void* row, bool transposed) {
  const int self = runner.thread().lane;
  Warp& w = runner.warp();
  if (self < count * 8 && reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    stop("a matrix's row is not aligned");
  }
  w.pointers[self] = row;
  runner.together([count, transposed](Warp& all) {
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < count; ++i) {
        const auto element = [&](int matrix_row, int column) {
          uint16_t v;
          const auto* from = static_cast<const std::byte*>(all.pointers[i * 8 + matrix_row]);
          std::memcpy(&v, from + column * 2, 2);
          return uint32_t{v};
        };
        const int g = lane / 4, t = lane % 4 * 2;
        all.words[lane][i] = transposed ? element(t, g) | element(t + 1, g) << 16
                                        : element(g, t) | element(g, t + 1) << 16;
      }
    }
  });
  std::copy_n(w.words[self], count, r);
}

void copy_async(void* shared, const void* global, bool valid) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 ||
      (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0)) {
    stop("an asynchronous copy is not aligned");
  }
  Thread& f = runner.thread();
  std::memset(shared, 0xff, 16);
  f.copies.push_back({static_cast<std::byte*>(shared),
                      valid ? static_cast<const std::byte*>(global) : nullptr, f.group});
}

void copy_async_commit() { ++runner.thread().group; }

void copy_async_wait(int groups_left) {
  Thread& f = runner.thread();
  std::erase_if(f.copies, [&](const AsyncCopy& copy) {
    if (copy.group >= f.group - groups_left) return false;
    if (copy.from) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
    return true;
  });
}

uint32_t on_bf16_pairs(uint32_t a, uint32_t b, float (*op)(float, float)) {
  uint32_t result = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const float x = f32_from_bf16(static_cast<uint16_t>(a >> shift)),
                y = f32_from_bf16(static_cast<uint16_t>(b >> shift));
    result |= uint32_t{bf16_from_f32(op(x, y))} << shift;
  }
  return result;
}

uint32_t select_bytes(uint32_t low, uint32_t high, uint32_t chosen) {
  const uint64_t all = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t byte = chosen >> (4 * i) & 7;
    result |= static_cast<uint32_t>(all >> (8 * byte) & 0xff) << (8 * i);
  }
  return result;
}

uint16_t bf16_of_float(float v) { return bf16_from_f32(v); }
float float_of_bf16(uint16_t bits) { return f32_from_bf16(bits); }
float float_of_f16(uint16_t bits) { return f32_from_f16(bits); }
uint16_t f16_of_float(float v) { return f16_from_f32(v); }

// OCP 8-bit floating point specification, E4M3: bias 7, no infinities, all ones a NaN.
float float_of_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const float sign = bits & 0x80 ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7) return NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

uint8_t e4m3_of_float(float v) {
  const uint8_t sign = std::signbit(v) ? 0x80 : 0;
  if (std::isnan(v)) return sign | 0x7f;
  const float size = std::fabs(v);
  if (size >= 448) return sign | 0x7e;
  const int exponent = size < std::ldexp(1.0f, -6) ? -6 : std::ilogb(size);
  const float steps = std::nearbyint(std::ldexp(size, 3 - exponent));  // ties to even
  // A carry into the exponent comes out right: the codes of two binades follow each other.
  const int code = static_cast<int>(steps) + (exponent == -6 ? 0 : (exponent + 6) * 8);
  return static_cast<uint8_t>(sign | std::min(code, 0x7e));
}

}  // namespace llorch::cuda::emulated
