// Drafts are made where they pay: the scheduler on made-up machines, under texts that repeat
// themselves and texts that do not.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace llorch {
namespace {

struct Machine {
  const char* name;
  std::function<double(int rows)> ms;
  // How many times faster at least, when 1, 4 and 16 sequences repeat themselves.
  std::vector<double> gains;
  double noise = 0.1;
  double stalls = 0;  // so many of the steps are a second late
};

double between_measured(const std::vector<std::pair<double, double>>& at, double rows) {
  size_t i = 1;
  while (i + 1 < at.size() && at[i].first < rows) ++i;
  const auto [x, y] = at[i - 1];
  return y + (at[i].second - y) / (at[i].first - x) * (rows - x);
}

// 1B on two cores: bf16 by tiles and by vectors.
double by_tiles(int rows) {
  return between_measured({{0, 70}, {1, 72}, {4, 82}, {8, 91}, {16, 109}, {512, 1330}}, rows);
}
double by_vectors(int rows) {
  return between_measured({{0, 61}, {1, 66}, {4, 89}, {8, 108}, {16, 154}, {512, 3080}}, rows);
}

const Machine kMachines[] = {
    {"tiles", by_tiles, {4, 2.5, 1.15}},
    {"tiles, noisy neighbours", by_tiles, {4, 2.5, 1.1}, 0.3, 0.01},
    {"vectors", by_vectors, {3, 1.4, 1.05}},
    {"vectors, noisy neighbours", by_vectors, {3, 1.4, 1.05}, 0.3, 0.01},
    {"a small model", [](int rows) { return 0.3 + 0.04 * rows; }, {2.5, 1.15, 1}},
    {"rows are dear", [](int rows) { return 1 + 10.0 * rows; }, {0.95, 0.98, 0.98}},
    {"rows for nothing", [](int rows) { return std::max(12.0, 0.06 * rows); }, {6, 5, 2.5}},
};

enum class Text { kRepeats, kProse, kRandom };

// Of 1000 tokens. Repeats: a passage of 40 again and again, one token in 20 another. Prose: one
// token in eight follows as it did the last time.
std::vector<int32_t> make_text(Text kind, size_t length, std::mt19937& random) {
  const auto any = [&](int n) { return static_cast<int32_t>(random() % static_cast<uint32_t>(n)); };
  std::vector<int32_t> text, last(1000, -1);
  while (text.size() < length) {
    int32_t next = any(1000);
    if (kind == Text::kRepeats && text.size() >= 40 && any(20) != 0) next = text.end()[-40];
    if (kind == Text::kProse) {
      next = any(30) * any(30);  // some are much more common
      if (!text.empty() && any(8) == 0) {
        const int32_t followed = last[static_cast<size_t>(text.back())];
        if (followed >= 0) next = followed;
      }
      if (!text.empty()) last[static_cast<size_t>(text.back())] = next;
    }
    text.push_back(next);
  }
  return text;
}

struct Result {
  double tokens_per_ms = 0;
  uint64_t drafted = 0;
  std::vector<double> longer;  // of each step: how many times as long as without its drafts
};

// Some sequences decode their texts side by side, always so many.
class Decoding {
 public:
  Decoding(const Machine& machine, uint32_t seed, bool speculate)
      : machine_(machine),
        random_(seed),
        speculate_(speculate),
        scheduler_({.max_batch = 32, .step_tokens = 512, .draft_rows = speculate ? 32 : 0}, blocks_,
                   cost_) {
    for (const int32_t prompt : {16, 64}) {  // as Engine::warm_up()
      std::mt19937 texts(0);
      add({make_text(Text::kRandom, static_cast<size_t>(prompt + 4), texts), prompt});
      int64_t tokens = 0;
      while (!all_.empty()) step(&tokens);
    }
  }

  Result decode(const std::vector<Text>& kinds, int steps) {
    std::mt19937 texts(1);
    result_ = {};
    int64_t tokens = 0;
    double ms = 0;
    for (int i = 0; i < steps; ++i) {
      for (size_t n = all_.size(); n < kinds.size(); ++n) {
        add({make_text(kinds[n], 500, texts), 100});
      }
      ms += step(&tokens);
    }
    result_.tokens_per_ms = static_cast<double>(tokens) / ms;
    return result_;
  }

 private:
  struct Telling {
    std::vector<int32_t> text;
    int32_t prompt = 0;
    std::unique_ptr<Sequence> sequence = nullptr;
  };

  void add(Telling telling) {
    Request request;
    request.prompt.assign(telling.text.begin(), telling.text.begin() + telling.prompt);
    request.max_tokens = static_cast<int32_t>(telling.text.size()) - telling.prompt;
    telling.sequence = std::make_unique<Sequence>(std::move(request));
    if (speculate_) telling.sequence->drafter.emplace(telling.sequence->limit());
    scheduler_.add(telling.sequence.get());
    all_.push_back(std::move(telling));
  }

  // Its duration, without noise.
  double step(int64_t* tokens) {
    const std::span<const Slice> slices = scheduler_.schedule();
    const std::vector<StepPart> parts(slices.begin(), slices.end());
    const StepLoad load = scheduler_.load();
    std::vector<int32_t> right;
    std::vector<Sequence*> wanting;
    int32_t drafts = 0;
    for (const Slice& slice : slices) {
      right.push_back(slice.wants_token() ? right_drafts(slice) : 0);
      if (slice.wants_token()) wanting.push_back(slice.sequence);
      drafts += slice.drafts();
      *tokens += right.back() + slice.wants_token();
    }
    result_.drafted += static_cast<uint64_t>(drafts);
    scheduler_.computed(parts, right);
    for (Sequence* sequence : wanting) {
      sequence->tokens.push_back(text_of(sequence)[static_cast<size_t>(sequence->known())]);
    }
    std::erase_if(all_, [&](const Telling& telling) {
      Sequence* sequence = telling.sequence.get();
      if (sequence->known() < sequence->limit()) return false;
      scheduler_.remove(sequence);
      return true;
    });
    const int32_t rows = load.decode_rows + load.prefill_rows;
    const double ms = machine_.ms(rows);
    if (load.prefill_rows == 0) result_.longer.push_back(ms / machine_.ms(rows - drafts));
    const double stray = 1 + machine_.noise * (uniform() * 2 - 1);
    const double took = ms * stray + (uniform() < machine_.stalls ? 1000 : 0);
    cost_.learn(load, std::chrono::nanoseconds(static_cast<int64_t>(took * 1e6)));
    return ms;
  }

  const std::vector<int32_t>& text_of(const Sequence* sequence) const {
    const auto is_its = [&](const Telling& t) { return t.sequence.get() == sequence; };
    return std::find_if(all_.begin(), all_.end(), is_its)->text;
  }

  int32_t right_drafts(const Slice& slice) const {
    const std::vector<int32_t>& text = text_of(slice.sequence);
    const auto drafts = std::span(slice.sequence->tokens).last(size_t(slice.drafts()));
    const auto wrong =
        std::mismatch(drafts.begin(), drafts.end(), text.begin() + slice.sequence->known());
    return static_cast<int32_t>(wrong.first - drafts.begin());
  }

  double uniform() { return static_cast<double>(random_()) / 4294967296.0; }

  const Machine& machine_;
  std::mt19937 random_;
  const bool speculate_;
  KvBlocks blocks_{{{{.layers = 1}}, 16, 512}, std::vector<int32_t>{4096}};
  StepCost cost_{{{.layers = 1}}, {}};
  Scheduler scheduler_;
  std::vector<Telling> all_;
  Result result_;
};

double gain(const Machine& machine, const std::vector<Text>& kinds) {
  const Result off = Decoding(machine, 1, false).decode(kinds, 2000);
  const Result on = Decoding(machine, 1, true).decode(kinds, 2000);
  EXPECT_EQ(off.drafted, 0u);
  return on.tokens_per_ms / off.tokens_per_ms;
}

TEST(DraftPolicy, GainsWhereTextsRepeatThemselves) {
  for (const Machine& machine : kMachines) {
    for (size_t i = 0; i < 3; ++i) {
      const size_t count = size_t{1} << (2 * i);
      EXPECT_GE(gain(machine, std::vector<Text>(count, Text::kRepeats)), machine.gains[i])
          << machine.name << ", " << count << " at once";
    }
  }
}

TEST(DraftPolicy, CostsNothingWhereTheyDoNot) {
  for (const Machine& machine : kMachines) {
    for (const Text text : {Text::kProse, Text::kRandom}) {
      for (const size_t count : {1u, 4u, 16u}) {
        EXPECT_GE(gain(machine, std::vector<Text>(count, text)), 0.985)
            << machine.name << ", " << count << " at once";
      }
    }
  }
}

// One gains, and the others, who have no drafts, are not much slower for it.
TEST(DraftPolicy, SlowsNeighboursByAQuarterAtMost) {
  std::vector<Text> kinds(8, Text::kRandom);
  kinds[0] = Text::kRepeats;
  for (const Machine& machine : kMachines) {
    SCOPED_TRACE(machine.name);
    Result on = Decoding(machine, 1, true).decode(kinds, 2000);
    std::sort(on.longer.begin(), on.longer.end());
    EXPECT_LE(on.longer[on.longer.size() * 95 / 100], 1.3);
    EXPECT_GE(gain(machine, kinds), 0.985);
  }
}

}  // namespace
}  // namespace llorch
