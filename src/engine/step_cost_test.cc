#include "engine/step_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace llorch {
namespace {

std::chrono::nanoseconds ns(double ms) {
  return std::chrono::nanoseconds(static_cast<int64_t>(ms * 1e6));
}

// A made-up machine: what a step costs, and how far measured steps stray from it.
struct Machine {
  const char* name;
  std::function<double(const StepLoad&)> ms;
  double noise = 0.1;    // up to so much, either way
  double stalls = 0;     // so many of the steps are a second late
  double slower_by = 1;  // drifts to that factor in the course of the test
};

double all_rows(const StepLoad& load) { return load.decode_rows + load.prefill_rows; }
double all_reads(const StepLoad& load) { return load.decode_reads + load.prefill_reads; }

// Between the figures measured for a 1B model on two cores.
double two_cores(const StepLoad& load) {
  constexpr double kAt[][2] = {{0, 63}, {1, 70}, {16, 176}, {32, 235}, {64, 404}, {512, 3100}};
  const double rows = all_rows(load);
  size_t i = 1;
  while (i + 1 < std::size(kAt) && kAt[i][0] < rows) ++i;
  const double slope = (kAt[i][1] - kAt[i - 1][1]) / (kAt[i][0] - kAt[i - 1][0]);
  return kAt[i - 1][1] + slope * (rows - kAt[i - 1][0]);
}

const Machine kMachines[] = {
    {"two cores", two_cores},
    {"two cores, noisy neighbours", two_cores, 0.3, 0.01},
    {"two cores, ever slower", two_cores, 0.1, 0, 3},
    {"attention counts", [](auto& l) { return 20 + 2 * all_rows(l) + 0.002 * all_reads(l); }},
    {"decode rows are dear", [](auto& l) { return 10 + 3 * l.decode_rows + l.prefill_rows; }},
    {"many rows for nothing", [](auto& l) { return std::max(8.0, 0.06 * all_rows(l)) + 0.3; }},
    {"rows for nothing, attention",
     [](auto& l) { return std::max(12.0, 0.1 * all_rows(l)) + 2e-5 * all_reads(l); }},
};

// The scheduler on a made-up machine, under random requests.
class Load {
 public:
  Load(const Machine& machine, uint32_t seed)
      : machine_(machine),
        random_(seed),
        blocks_({{{.layers = 1}}, 16, 512}, std::vector<int32_t>{8192}),
        cost_({{.layers = 1}}, {}),
        scheduler_({.max_batch = 16, .step_tokens = 512}, blocks_, cost_) {}

  void add(int32_t prompt, int32_t max_tokens) {
    Request request;
    // Of its own token: what one computes is of no use to another.
    request.prompt.assign(static_cast<size_t>(prompt), static_cast<int32_t>(all_.size()) + 2);
    request.max_tokens = max_tokens;
    all_.push_back(std::make_unique<Sequence>(std::move(request)));
    scheduler_.add(all_.back().get());
  }
  void add_any() { add(between(1, between(1, 4) == 1 ? 4000 : 300), between(1, 100)); }

  // The step's duration on the machine, without noise.
  double step() {
    const double drift = 1 + (machine_.slower_by - 1) * std::min(1.0, steps_++ / 2000.0);
    std::vector<Sequence*> wanting;
    const std::span<const Slice> slices = scheduler_.schedule();
    for (const Slice& slice : slices) {
      if (slice.wants_token()) wanting.push_back(slice.sequence);
    }
    load_ = scheduler_.load();
    const std::vector<StepPart> parts(slices.begin(), slices.end());
    scheduler_.computed(parts, std::vector<int32_t>(slices.size()));
    for (Sequence* s : wanting) {
      s->tokens.push_back(1);
      if (s->known() == s->limit()) scheduler_.remove(s);
    }
    const double ms = drift * machine_.ms(load_);
    const double stray = 1 + machine_.noise * (uniform() * 2 - 1);
    cost_.learn(load_, ns(ms * stray + (uniform() < machine_.stalls ? 1000 : 0)));
    return ms;
  }
  // Of the same step with `rows` of its prompts' rows only.
  double with_prefill(int32_t rows) const {
    StepLoad load = load_;
    load.prefill_reads *= static_cast<double>(rows) / load.prefill_rows;
    load.prefill_rows = rows;
    return machine_.ms(load) * (1 + (machine_.slower_by - 1) * std::min(1.0, steps_ / 2000.0));
  }

  int32_t between(int32_t least, int32_t most) {
    return least + static_cast<int32_t>(random_() % static_cast<uint32_t>(most - least + 1));
  }
  double uniform() { return static_cast<double>(random_()) / 4294967296.0; }
  const StepLoad& load() const { return load_; }
  const StepCost& cost() const { return cost_; }
  Scheduler& scheduler() { return scheduler_; }
  bool idle() const { return scheduler_.running() + scheduler_.waiting() == 0; }

 private:
  const Machine& machine_;
  std::mt19937 random_;
  KvBlocks blocks_;
  StepCost cost_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Sequence>> all_;
  StepLoad load_;
  int steps_ = 0;
};

// As Engine::warm_up() does.
void warm_up(Load& load) {
  for (const int32_t prompt : {16, 64}) {
    load.add(prompt, 4);
    while (!load.idle()) load.step();
  }
}

double quantile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

TEST(StepCost, BoundsNothingUntilItHasLearned) {
  const StepCost cost({{.layers = 1}}, {});
  EXPECT_FALSE(cost.known());
  EXPECT_EQ(cost.prefill_rows({}, 0, 512), 512);
}

TEST(StepCost, CountsWhatRowsRead) {
  const StepCost all({{.layers = 1}}, {});
  EXPECT_EQ(all.with_decode({}, 9).decode_reads, 10);
  EXPECT_EQ(all.with_prefill({}, 4, 3).prefill_reads, 5 + 6 + 7);
  EXPECT_EQ(all.with_prefill(all.with_prefill({}, 0, 2), 2, 2).prefill_reads, 1 + 2 + 3 + 4);
  // Three of four layers see four tokens at most.
  const StepCost windows({{.layers = 1}, {.layers = 3, .window = 4}}, {});
  EXPECT_EQ(windows.with_decode({}, 9).decode_reads, (10 + 3 * 4) / 4.0);
  EXPECT_EQ(windows.with_prefill({}, 2, 4).prefill_reads,
            (3 + 4 + 5 + 6 + 3 * (3 + 4 + 4 + 4)) / 4.0);
}

// Rows cost nothing here: a draft is worth it if it brings more than is computed in the gap.
TEST(StepCost, WaitsForDraftsThatBringMoreThanTheGapTakes) {
  StepCost cost({{.layers = 1}}, {});
  StepLoad eight;
  for (int i = 0; i < 8; ++i) eight = cost.with_decode(eight, 10);
  const StepLoad nine = cost.with_decode(eight, 10);
  const auto waits = [&](double gain) { return cost.worth_waiting({eight, nine, 8 + gain, 0}, 8); };
  EXPECT_TRUE(waits(0.1));  // nothing is known
  EXPECT_FALSE(waits(0));
  for (int i = 0; i < 5; ++i) cost.learn(nine, ns(1'000'000));
  EXPECT_TRUE(waits(0.1));  // no gap is known
  for (int i = 0; i < 5; ++i) cost.learn_gap(ns(100'000));
  EXPECT_FALSE(waits(0.7));
  EXPECT_TRUE(waits(1.7));  // 8 of 9 rows at most, and a tenth of a step
}

TEST(StepCost, LetsAPromptHaveItsFloorHoweverLongItTakes) {
  StepCost cost({{.layers = 1}}, {});
  for (int i = 0; i < 50; ++i) {
    StepLoad load;
    cost.learn(cost.with_decode(load, 10), ns(100));
    cost.learn(cost.with_prefill(load, 0, 64), ns(100 + 64 * 1000));
  }
  EXPECT_EQ(cost.prefill_rows({}, 0, 512), 64);
  const StepLoad decode = cost.with_decode({}, 10);
  EXPECT_EQ(cost.prefill_rows(decode, 0, 512), 4);
  EXPECT_EQ(cost.prefill_rows(cost.with_prefill(decode, 0, 3), 3, 512), 1);
  EXPECT_EQ(cost.prefill_rows(cost.with_prefill(decode, 0, 4), 4, 512), 0);
  EXPECT_EQ(cost.prefill_rows(decode, 0, 3), 3);
}

TEST(StepCost, IsNotMisledByAStall) {
  StepCost cost({{.layers = 1}}, {});
  const StepLoad load = cost.with_decode({}, 10);
  for (int i = 0; i < 50; ++i) cost.learn(load, ns(70));
  cost.learn(load, ns(10'000));
  EXPECT_NEAR(cost.times().of(load), 70, 7);
  for (int i = 0; i < 100; ++i) cost.learn(load, ns(140));
  EXPECT_NEAR(cost.times().of(load), 140, 7);
}

TEST(StepCost, BoundsStepsOnAnyMachine) {
  for (const Machine& machine : kMachines) {
    SCOPED_TRACE(machine.name);
    std::vector<double> beside, alone;  // how much longer than the bound
    for (uint32_t seed = 0; seed < 20; ++seed) {
      Load load(machine, seed);
      warm_up(load);
      for (int step = 0; step < 2000; ++step) {
        if (load.idle() || load.between(1, 40) == 1) load.add_any();
        const double ms = load.step();
        if (load.load().decode_rows == 0) {
          if (load.load().prefill_rows > 64) alone.push_back(ms / 500);
        } else if (load.load().prefill_rows > 4) {
          beside.push_back(ms / std::max(load.with_prefill(0) * 2, load.with_prefill(4)));
        }
      }
    }
    EXPECT_GT(beside.size() + alone.size(), 500);
    EXPECT_LT(quantile(beside, 0.5), 1.1);
    EXPECT_LT(quantile(beside, 0.9), 1.2);
    EXPECT_LT(quantile(beside, 0.99), 1.35);
    EXPECT_LT(quantile(beside, 1), 4);  // the first of its kind
    EXPECT_LT(quantile(alone, 0.5), 1.25);
    EXPECT_LT(quantile(alone, 0.9), 1.35);
    EXPECT_LT(quantile(alone, 1), 2);
  }
}

TEST(StepCost, PredictsStepsOnAnyMachine) {
  for (const Machine& machine : kMachines) {
    SCOPED_TRACE(machine.name);
    for (uint32_t seed = 0; seed < 4; ++seed) {
      Load load(machine, seed);
      warm_up(load);
      std::vector<double> errors;
      for (int step = 0; step < 3000; ++step) {
        if (load.idle() || load.between(1, 40) == 1) load.add_any();
        const double ms = load.step();
        errors.push_back(std::abs(load.cost().times().of(load.load()) / ms - 1));
      }
      EXPECT_LT(quantile(errors, 0.9), 0.15);
    }
  }
}

}  // namespace
}  // namespace llorch
