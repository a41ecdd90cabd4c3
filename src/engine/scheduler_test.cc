#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace llorch {
namespace {

std::unique_ptr<Sequence> sequence(int32_t prompt_tokens, int32_t max_tokens) {
  Request request;
  request.prompt.assign(static_cast<size_t>(prompt_tokens), 1);
  request.max_tokens = max_tokens;
  return std::make_unique<Sequence>(std::move(request));
}

int32_t held(const Sequence& s) {
  int32_t sum = 0;
  for (const BlockTable& table : s.kv) sum += table.held();
  return sum;
}

int32_t output_tokens(const Sequence& s) {
  return static_cast<int32_t>(s.tokens.size()) - s.prompt_tokens;
}

// A scheduler with its blocks, and the engine's part of a step: what was scheduled is computed and
// whoever wants a token gets one; the finished leave.
struct Bench {
  KvBlocks blocks;
  Scheduler scheduler;
  std::vector<std::unique_ptr<Sequence>> all;
  std::vector<Sequence*> finished;

  Bench(int32_t block_count, int32_t block_tokens, SchedulerOptions options)
      : Bench({{}}, {block_count}, block_tokens, options) {}
  Bench(std::vector<KvGroup> groups, const std::vector<int32_t>& counts, int32_t block_tokens,
        SchedulerOptions options)
      : blocks({std::move(groups), block_tokens, options.step_tokens}, counts),
        scheduler(options, blocks) {}

  Sequence* add(int32_t prompt_tokens, int32_t max_tokens) {
    all.push_back(sequence(prompt_tokens, max_tokens));
    scheduler.add(all.back().get());
    return all.back().get();
  }

  std::vector<std::pair<Sequence*, int32_t>> step() {
    std::vector<std::pair<Sequence*, int32_t>> result;
    std::vector<Sequence*> wanting;
    for (const Slice& slice : scheduler.schedule()) {
      result.emplace_back(slice.sequence, slice.tokens);
      if (slice.wants_token()) wanting.push_back(slice.sequence);
    }
    scheduler.computed();
    for (Sequence* s : wanting) {
      s->tokens.push_back(1);
      if (output_tokens(*s) < s->request.max_tokens) continue;
      scheduler.remove(s);
      finished.push_back(s);
    }
    return result;
  }
};

using Slices = std::vector<std::pair<Sequence*, int32_t>>;

TEST(Scheduler, CutsAPromptIntoChunksOfTheBudget) {
  Bench bench(16, 16, {.max_batch = 4, .step_tokens = 10});
  Sequence* a = bench.add(25, 2);
  EXPECT_EQ(bench.step(), (Slices{{a, 10}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 10}}));
  EXPECT_EQ(output_tokens(*a), 0);
  EXPECT_EQ(bench.step(), (Slices{{a, 5}}));
  EXPECT_EQ(output_tokens(*a), 1);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));
  EXPECT_EQ(bench.finished, std::vector<Sequence*>{a});
  EXPECT_EQ(bench.step(), Slices{});
  EXPECT_EQ(bench.blocks.used(), 0);
}

TEST(Scheduler, DecodesFirstAndPrefillsBeside) {
  Bench bench(16, 16, {.max_batch = 4, .step_tokens = 10});
  Sequence* a = bench.add(3, 50);
  bench.step();
  Sequence* b = bench.add(20, 50);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 9}}));
  Sequence* c = bench.add(4, 50);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 9}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 2}, {c, 4}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 1}, {c, 1}}));
}

TEST(Scheduler, AdmitsInOrderOfArrivalUpToMaxBatch) {
  Bench bench(64, 16, {.max_batch = 2, .step_tokens = 100});
  Sequence* a = bench.add(5, 2);
  Sequence* b = bench.add(6, 9);
  Sequence* c = bench.add(1, 9);
  EXPECT_EQ(bench.step(), (Slices{{a, 5}, {b, 6}}));
  EXPECT_EQ(bench.scheduler.waiting(), 1);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 1}}));
  EXPECT_EQ(bench.step(), (Slices{{b, 1}, {c, 1}}));
}

TEST(Scheduler, KeepsASmallRequestBehindALargeOneThatDoesNotFit) {
  Bench bench(4, 16, {.max_batch = 4, .step_tokens = 100});
  Sequence* a = bench.add(33, 2);
  Sequence* b = bench.add(40, 2);
  bench.add(1, 2);
  EXPECT_EQ(bench.step(), (Slices{{a, 33}}));
  EXPECT_EQ(bench.scheduler.waiting(), 2);
  bench.step();
  EXPECT_EQ(bench.step().front(), (std::pair{b, 40}));
}

TEST(Scheduler, AdmitsAllThatCanNeverNeedMoreThanThePool) {
  Bench bench(8, 16, {.max_batch = 2, .step_tokens = 200});
  Sequence* a = bench.add(60, 4);
  Sequence* b = bench.add(60, 4);
  EXPECT_EQ(bench.step(), (Slices{{a, 60}, {b, 60}}));
}

TEST(Scheduler, KeepsASpareBlockForWhoCanStillGrow) {
  for (const bool can_grow : {true, false}) {
    Bench bench(4, 4, {.max_batch = 4, .step_tokens = 100});
    Sequence* a = bench.add(2, can_grow ? 3 : 2);
    Sequence* b = bench.add(11, 1);
    const Slices both{{a, 2}, {b, 11}}, alone{{a, 2}};
    EXPECT_EQ(bench.step(), can_grow ? alone : both);
  }
}

TEST(Scheduler, PreemptsTheYoungestWhenBlocksRunOut) {
  Bench bench(5, 4, {.max_batch = 4, .step_tokens = 100});
  Sequence* a = bench.add(4, 12);
  Sequence* b = bench.add(4, 12);
  bench.step();
  for (int i = 0; i < 4; ++i) bench.step();
  EXPECT_EQ(bench.blocks.used(), 4);
  EXPECT_EQ(output_tokens(*a), 5);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));  // its third block is the fifth: none is left for b
  EXPECT_EQ(b->computed, 0);
  EXPECT_EQ(held(*b), 0);
  EXPECT_EQ(output_tokens(*b), 5);
  EXPECT_EQ(bench.scheduler.waiting(), 1);
  Slices last;
  while (bench.finished.empty()) last = bench.step();
  EXPECT_EQ(bench.finished.front(), a);
  EXPECT_EQ(bench.step(), (Slices{{b, 9}}));  // prompt and output anew
  EXPECT_EQ(output_tokens(*b), 6);
}

TEST(Scheduler, PutsThePreemptedBeforeThoseWhoWait) {
  Bench bench(5, 4, {.max_batch = 2, .step_tokens = 100});
  bench.add(4, 12);
  Sequence* b = bench.add(4, 12);
  Sequence* c = bench.add(1, 12);
  for (int i = 0; i < 6; ++i) bench.step();
  EXPECT_EQ(bench.scheduler.waiting(), 2);
  EXPECT_EQ(held(*b), 0);
  while (held(*b) == 0) {
    EXPECT_EQ(held(*c), 0);
    bench.step();
  }
}

TEST(Scheduler, FreesWhatFellOutOfTheWindow) {
  constexpr int32_t kWindow = 20, kStep = 16, kPerBlock = 4;
  for (const bool alternating : {false, true}) {
    std::vector<KvGroup> groups = {{.layers = 1, .window = kWindow}};
    if (alternating) groups.push_back({.layers = 1});
    const std::vector<int32_t> counts(groups.size(), 300);
    Bench bench(groups, counts, kPerBlock, {.max_batch = 4, .step_tokens = kStep});
    Sequence* s = bench.add(500, 400);
    while (bench.finished.empty()) {
      bench.step();
      if (!bench.finished.empty()) break;
      ASSERT_LE(s->kv[0].held(), (kWindow + kStep) / kPerBlock + 1);
      const bool decoding = output_tokens(*s) > 1;
      ASSERT_LE(s->kv[0].held(), (kWindow + (decoding ? 0 : kStep)) / kPerBlock + 1);
      ASSERT_TRUE(!alternating ||
                  s->kv[1].held() == bench.blocks.needed(1, std::max(500, s->computed)));
    }
    EXPECT_EQ(bench.blocks.used(), 0);
    EXPECT_EQ(output_tokens(*s), 400);
  }
}

TEST(Scheduler, ComputesASequenceAnewOnce) {
  Bench bench(64, 4, {.max_batch = 4, .step_tokens = 16, .recompute_above = 20});
  Sequence* a = bench.add(18, 6);
  EXPECT_EQ(bench.step(), (Slices{{a, 16}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 2}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));
  EXPECT_EQ(a->known(), 21);
  EXPECT_EQ(bench.step(), (Slices{{a, 16}}));  // all 21 anew
  EXPECT_EQ(bench.step(), (Slices{{a, 5}}));
  EXPECT_EQ(a->known(), 22);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));
  EXPECT_EQ(bench.finished, std::vector<Sequence*>{a});
  EXPECT_EQ(bench.scheduler.preemptions(), 0u);
  Sequence* b = bench.add(21, 2);  // long from the start
  EXPECT_EQ(bench.step(), (Slices{{b, 16}}));
  EXPECT_EQ(bench.step(), (Slices{{b, 5}}));
  EXPECT_EQ(bench.step(), (Slices{{b, 1}}));
  EXPECT_EQ(bench.blocks.used(), 0);
}

TEST(Scheduler, RemovesFromWaitingPrefillAndDecode) {
  Bench bench(16, 4, {.max_batch = 2, .step_tokens = 6});
  Sequence* a = bench.add(4, 9);
  Sequence* b = bench.add(12, 9);
  Sequence* c = bench.add(4, 9);
  bench.step();
  EXPECT_EQ(a->missing(), 1);
  EXPECT_EQ(b->missing(), 10);
  for (Sequence* s : {c, b, a}) {
    bench.scheduler.remove(s);
    EXPECT_EQ(held(*s), 0);
  }
  EXPECT_EQ(bench.blocks.used(), 0);
  EXPECT_EQ(bench.step(), Slices{});
}

struct Load {
  const char* name;
  int32_t blocks, block_tokens, max_batch, step_tokens, arrivals_per_100_steps;
  std::vector<KvGroup> groups = {{}};
  int32_t recompute_above = 0;

  // Of each group: `blocks`, or what a single sequence needs if that is less.
  std::vector<int32_t> counts() const {
    const KvShape shape{groups, block_tokens, step_tokens};
    std::vector<int32_t> result;
    for (size_t g = 0; g < groups.size(); ++g) {
      result.push_back(shape.needed(g, blocks * block_tokens));
    }
    return result;
  }
};

// Random arrivals and cancels against a pool that is often too small.
void run_load(const Load& load, uint32_t seed) {
  SCOPED_TRACE(load.name);
  std::mt19937 random(seed);
  const auto up_to = [&](int32_t most) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(most)) + 1;
  };
  const int32_t context = load.blocks * load.block_tokens;
  Bench bench(load.groups, load.counts(), load.block_tokens,
              {load.max_batch, load.step_tokens, load.recompute_above});
  std::vector<Sequence*> open;      // in order of arrival
  std::vector<Sequence*> admitted;  // in order of their first slice
  for (int step = 0; step < 3000 || !open.empty(); ++step) {
    ASSERT_LT(step, 200000) << "someone starves";
    if (step < 3000 && random() % 100 < static_cast<uint32_t>(load.arrivals_per_100_steps)) {
      const int32_t prompt = up_to(context - 1);
      open.push_back(bench.add(prompt, up_to(std::min(context - prompt, 40))));
    }
    if (!open.empty() && random() % 50 == 0) {
      const auto victim = open.begin() + static_cast<std::ptrdiff_t>(random() % open.size());
      bench.scheduler.remove(*victim);
      ASSERT_EQ(held(**victim), 0);
      std::erase(admitted, *victim);
      open.erase(victim);
    }
    std::vector<int32_t> outputs;
    for (const Sequence* s : open) outputs.push_back(output_tokens(*s));
    const Slices slices = bench.step();
    ASSERT_EQ(slices.empty(), open.empty());
    int32_t tokens = 0;
    for (const auto& slice : slices) {
      Sequence* const s = slice.first;
      ASSERT_GT(slice.second, 0);
      tokens += slice.second;
      ASSERT_EQ(std::count_if(slices.begin(), slices.end(), [&](auto& x) { return x.first == s; }),
                1);
      if (std::find(admitted.begin(), admitted.end(), s) == admitted.end()) admitted.push_back(s);
    }
    ASSERT_LE(tokens, load.step_tokens);
    ASSERT_LE(static_cast<int32_t>(slices.size()), load.max_batch);
    // Nobody is started before an older one.
    ASSERT_LE(admitted.size(), open.size());
    ASSERT_TRUE(std::equal(admitted.begin(), admitted.end(), open.begin()));
    // The oldest of all is part of every step, unless it has to begin anew.
    if (!open.empty() && load.recompute_above == 0) {
      ASSERT_TRUE(std::any_of(slices.begin(), slices.end(),
                              [&](auto& x) { return x.first == open.front(); }));
    }
    int32_t used = 0;
    for (size_t i = 0; i < open.size(); ++i) {
      used += held(*open[i]);
      ASSERT_LE(output_tokens(*open[i]) - outputs[i], 1);
      ASSERT_GE(output_tokens(*open[i]), outputs[i]);
    }
    ASSERT_EQ(bench.blocks.used(), used);
    for (Sequence* s : bench.finished) {
      std::erase(open, s);
      std::erase(admitted, s);
      ASSERT_EQ(output_tokens(*s), s->request.max_tokens);
    }
    bench.finished.clear();
  }
  EXPECT_EQ(bench.blocks.used(), 0);
  EXPECT_EQ(bench.scheduler.running() + bench.scheduler.waiting(), 0);
}

TEST(Scheduler, KeepsItsPromisesUnderRandomLoad) {
  const Load loads[] = {
      {"tight pool", 6, 4, 8, 16, 30},
      {"one block a token", 24, 1, 4, 4, 30},
      {"roomy pool", 200, 4, 8, 64, 5},
      {"one at a time", 6, 4, 1, 1, 5},
      {"budget of one each", 12, 4, 8, 8, 25},
      {"a window", 30, 4, 8, 16, 20, {{.window = 9}}},
      {"a window of one", 30, 3, 8, 8, 20, {{.window = 1}}},
      {"alternating windows", 20, 4, 8, 16, 20, {{}, {.window = 10}}},
      {"wide window", 12, 4, 8, 16, 20, {{.window = 40}, {}}},
      {"computed anew", 20, 4, 8, 16, 20, {{}}, 30},
      {"computed anew in a window", 20, 4, 8, 16, 20, {{.window = 12}, {}}, 30},
  };
  for (const Load& load : loads) {
    for (uint32_t seed = 0; seed < 4; ++seed) run_load(load, seed);
  }
}

}  // namespace
}  // namespace llorch
