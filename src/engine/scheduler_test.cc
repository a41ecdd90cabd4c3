#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace llorch {
namespace {

// No two of them have more in common than their first `shared` tokens.
std::unique_ptr<Sequence> sequence(int32_t prompt_tokens, int32_t max_tokens, int32_t priority,
                                   int32_t shared) {
  static int32_t own = 1;
  Request request;
  request.priority = priority;
  request.prompt.assign(static_cast<size_t>(prompt_tokens), ++own);
  std::fill_n(request.prompt.begin(), std::min(shared, prompt_tokens), 1);
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
// whoever wants a token gets one, and so many of its drafts as luck has it; the finished leave.
struct Bench {
  const bool speculate;
  KvBlocks blocks;
  StepCost cost{{{.layers = 1}}, {}};  // has learned nothing: bounds nothing
  Scheduler scheduler;
  std::vector<std::unique_ptr<Sequence>> all;
  std::vector<Sequence*> finished;
  std::mt19937 luck{1};
  int32_t drafted = 0, right = 0;

  Bench(int32_t block_count, int32_t block_tokens, SchedulerOptions options)
      : Bench({{}}, {block_count}, block_tokens, options) {}
  Bench(std::vector<KvGroup> groups, const std::vector<int32_t>& counts, int32_t block_tokens,
        SchedulerOptions options)
      : speculate(options.draft_rows > 0),
        blocks({std::move(groups), block_tokens, options.step_tokens, {options.recompute_above}},
               counts),
        scheduler(options, blocks, cost) {}

  Sequence* add(int32_t prompt_tokens, int32_t max_tokens, int32_t priority = 0,
                int32_t shared = 0) {
    all.push_back(sequence(prompt_tokens, max_tokens, priority, shared));
    if (speculate) all.back()->drafter.emplace(all.back()->limit());
    scheduler.add(all.back().get());
    return all.back().get();
  }

  // The rows of each.
  std::vector<std::pair<Sequence*, int32_t>> step() {
    std::vector<std::pair<Sequence*, int32_t>> result;
    std::vector<Sequence*> wanting;
    std::vector<int32_t> rights;
    const std::span<const Slice> slices = scheduler.schedule();
    const std::vector<StepPart> parts(slices.begin(), slices.end());
    for (const Slice& slice : slices) {
      result.emplace_back(slice.sequence, slice.rows());
      if (slice.wants_token()) wanting.push_back(slice.sequence);
      const int32_t drafts = slice.drafts();
      rights.push_back(static_cast<int32_t>(luck() % static_cast<uint32_t>(drafts + 1)));
      drafted += drafts;
      right += rights.back();
    }
    blocks.make_copies([](size_t, int32_t, int32_t) {});
    scheduler.computed(parts, rights);
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
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 5}, {c, 4}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {c, 1}, {b, 6}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 1}, {c, 1}}));
}

TEST(Scheduler, GivesHalfToTheForemostPromptAndTheRestToTheShortest) {
  Bench bench(200, 16, {.max_batch = 8, .step_tokens = 20});
  Sequence* a = bench.add(100, 2);
  Sequence* b = bench.add(100, 2);
  Sequence* c = bench.add(15, 2);
  Sequence* d = bench.add(4, 2);
  EXPECT_EQ(bench.step(), (Slices{{a, 10}, {d, 4}, {c, 6}}));
  EXPECT_EQ(bench.step(), (Slices{{d, 1}, {a, 10}, {c, 9}}));
  EXPECT_EQ(bench.step(), (Slices{{c, 1}, {a, 19}}));
  // As long as it is the shorter one, the first has all: b gains nothing by a waiting for it.
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bench.step(), (Slices{{a, 20}}));
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {b, 19}}));
}

TEST(Scheduler, LetsNoOvertakerTakeWhatTheHeadOfTheLineNeeds) {
  // 20 blocks: a holds 8, b needs 9, so there is room for a c beside b if it needs at most 2 (one
  // is a's spare).
  for (const int32_t tokens : {7, 8}) {
    Bench bench(20, 4, {.max_batch = 8, .step_tokens = 8});
    Sequence* a = bench.add(29, 9);
    bench.step();
    bench.add(32, 2);
    Sequence* c = bench.add(tokens, 2);
    bench.step();
    EXPECT_EQ(held(*c) > 0, tokens == 7);
    EXPECT_GT(held(*a), 0);
  }
  // Nor the last place of the batch.
  for (const int32_t places : {2, 3}) {
    Bench bench(50, 4, {.max_batch = places, .step_tokens = 8});
    bench.add(29, 9);
    bench.step();
    bench.add(32, 2);
    Sequence* c = bench.add(4, 2);
    bench.step();
    EXPECT_EQ(held(*c) > 0, places == 3);
  }
}

TEST(Scheduler, TakesTheHigherPriorityFirst) {
  Bench bench(200, 16, {.max_batch = 2, .step_tokens = 10});
  Sequence* low = bench.add(4, 9, -5);
  Sequence* first = bench.add(4, 9);
  Sequence* second = bench.add(4, 9);
  EXPECT_EQ(bench.step(), (Slices{{first, 4}, {second, 4}}));
  // No half for a shorter prompt of lower priority.
  Bench other(200, 16, {.max_batch = 4, .step_tokens = 10});
  low = other.add(4, 9, -5);
  Sequence* high = other.add(25, 9, 5);
  EXPECT_EQ(other.step(), (Slices{{high, 10}}));
  EXPECT_EQ(other.step(), (Slices{{high, 10}}));
  EXPECT_EQ(other.step(), (Slices{{high, 5}, {low, 4}}));
}

TEST(Scheduler, PutsTheLowestPriorityBackForAHigherOne) {
  Bench bench(200, 16, {.max_batch = 3, .step_tokens = 10});
  Sequence* a = bench.add(2, 9);
  Sequence* low = bench.add(2, 9, -1);
  Sequence* young = bench.add(2, 9);
  bench.step();
  Sequence* high = bench.add(3, 9, 1);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}, {young, 1}, {high, 3}}));
  EXPECT_EQ(held(*low), 0);
  EXPECT_EQ(bench.scheduler.preemptions(), 1u);
  bench.add(3, 9, 0);  // behind all who run
  EXPECT_EQ(bench.step(), (Slices{{high, 1}, {a, 1}, {young, 1}}));
  // Nobody gives its place to one of its own priority.
  Bench equal(200, 16, {.max_batch = 3, .step_tokens = 8});
  for (int i = 0; i < 3; ++i) equal.add(20, 30);
  a = equal.add(2, 30);  // overtakes the second and the third
  for (int i = 0; i < 12; ++i) equal.step();
  EXPECT_EQ(output_tokens(*a), 12);
  EXPECT_EQ(equal.scheduler.waiting(), 1);
  EXPECT_EQ(equal.scheduler.preemptions(), 0u);
  // Blocks alike, and nobody goes when that would not make enough room.
  Bench tight(6, 4, {.max_batch = 8, .step_tokens = 30});
  a = tight.add(8, 3, 2);
  low = tight.add(7, 2);
  EXPECT_EQ(tight.step(), (Slices{{a, 8}, {low, 7}}));
  high = tight.add(12, 2, 1);
  EXPECT_EQ(tight.step(), (Slices{{a, 1}, {low, 1}}));
  tight.step();
  EXPECT_EQ(tight.finished, (std::vector<Sequence*>{low, a}));
  EXPECT_EQ(tight.scheduler.preemptions(), 0u);
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
  Sequence* c = bench.add(1, 2);
  EXPECT_EQ(bench.step(), (Slices{{a, 33}}));
  EXPECT_EQ(bench.scheduler.waiting(), 2);
  EXPECT_EQ(bench.step(), (Slices{{a, 1}}));
  EXPECT_EQ(bench.step(), (Slices{{b, 40}, {c, 1}}));
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
  EXPECT_EQ(bench.step(), (Slices{{b, 5}}));  // its second block went to a, its first is found
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
                  s->kv[1].held() == (std::max(500, s->computed) + kPerBlock - 1) / kPerBlock);
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

// A sequence whose last tokens repeat themselves: its next step has drafts.
Sequence* repeating(Bench& bench, int32_t prompt_tokens, int32_t max_tokens) {
  Sequence* s = bench.add(prompt_tokens, max_tokens, 0, prompt_tokens);
  bench.step();
  return s;
}

TEST(Scheduler, DraftsNoMoreThanCanBeToldAndFits) {
  const SchedulerOptions options{.max_batch = 2, .step_tokens = 64, .draft_rows = 30};
  for (int32_t left = 1; left < 20; ++left) {
    Bench bench(100, 16, options);
    Sequence* s = repeating(bench, 30, left + 1);
    // One token more follows the last right draft.
    EXPECT_EQ(bench.step(), (Slices{{s, std::min(left, 16)}}));
  }
  for (const int32_t rows : {0, 1, 7}) {
    SchedulerOptions few = options;
    few.draft_rows = rows;
    Bench bench(100, 16, few);
    Sequence* s = repeating(bench, 30, 50);
    EXPECT_EQ(bench.step(), (Slices{{s, 1 + rows}}));
  }
}

TEST(Scheduler, DraftsNotBeyondTheLengthThatItsRopeIsFor) {
  SchedulerOptions options{.max_batch = 2, .step_tokens = 64, .draft_rows = 30};
  options.recompute_above = 40;
  for (const int32_t prompt : {30, 35, 38, 39}) {
    Bench bench(100, 16, options);
    Sequence* s = repeating(bench, prompt, 50);
    // The prompt and a token are known.
    EXPECT_EQ(bench.step(), (Slices{{s, 40 - prompt}}));
  }
}

TEST(Scheduler, TakesNoBlockForDraftsThatAnotherMayNeed) {
  const SchedulerOptions options{.max_batch = 2, .step_tokens = 64, .draft_rows = 30};
  // Of blocks of 16 tokens the second has 5 places behind the 27th.
  for (const bool waits : {false, true}) {
    Bench bench(5, 16, options);
    Sequence* s = repeating(bench, 26, 50);
    if (waits) bench.add(60, 2);
    EXPECT_EQ(bench.step(), (Slices{{s, waits ? 6 : 16}}));
  }
}

// What could not be computed is not known, and holds nothing.
TEST(Scheduler, DropsTheDraftsOfAStepThatFailed) {
  Bench bench(100, 4, {.max_batch = 2, .step_tokens = 64, .draft_rows = 30});
  Sequence* s = repeating(bench, 30, 50);
  const std::vector<int32_t> tokens = s->tokens;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(bench.scheduler.schedule().front().rows(), 16);
    EXPECT_EQ(s->known(), 31);
    EXPECT_EQ(s->tokens.size(), 31u + 15);
  }
  bench.scheduler.remove(s);
  EXPECT_EQ(bench.blocks.used(), 0);
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), s->tokens.begin()));
}

struct Load {
  const char* name;
  int32_t blocks, block_tokens, max_batch, step_tokens, arrivals_per_100_steps;
  std::vector<KvGroup> groups = {{}};
  int32_t recompute_above = 0;
  int32_t priorities = 1;
  int32_t shared = 0;  // prompts have up to so many of their first tokens in common
  bool speculate = false;

  int32_t draft_rows() const { return speculate ? (step_tokens - max_batch) / 2 : 0; }

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

// What scheduler.h promises of the order, after a step. `open` is in order; they held `had` blocks
// before.
void check_order(const Bench& bench, const Load& load, const std::vector<Sequence*>& open,
                 const std::vector<int32_t>& had, const Slices& slices) {
  const auto sliced = [&](const Sequence* s) {
    return std::any_of(slices.begin(), slices.end(), [&](auto& x) { return x.first == s; });
  };
  const auto waits = [&](const Sequence* s) { return held(*s) == 0 && !sliced(s); };
  // The foremost goes on; it waits for nobody but those of its priority that run already.
  if (!open.empty() && load.recompute_above == 0 && !sliced(open.front())) {
    ASSERT_EQ(had.front(), 0);
    for (const auto& slice : slices) {
      ASSERT_EQ(slice.first->request.priority, open.front()->request.priority);
      ASSERT_GT(
          had[static_cast<size_t>(std::find(open.begin(), open.end(), slice.first) - open.begin())],
          0);
    }
  }
  // The head of the line, when somebody else was let in.
  size_t at = 0;
  while (at < open.size() && had[at] > 0 && !waits(open[at])) ++at;
  if (at == open.size() || !waits(open[at])) return;
  const Sequence* head = open[at];
  // Who comes in before the head of the line leaves it its place and its blocks.
  for (size_t i = at + 1; i < open.size(); ++i) {
    if (had[i] > 0 || !sliced(open[i])) continue;
    ASSERT_EQ(open[i]->request.priority, head->request.priority);
    ASSERT_LT(bench.scheduler.running(), load.max_batch);
    for (size_t g = 0; g < load.groups.size(); ++g) {
      ASSERT_GE(bench.blocks.free(g), bench.blocks.needed(g, *head));
    }
  }
  // Nobody gets blocks at the expense of one before it in order.
  for (size_t i = 0; i < open.size() && load.recompute_above == 0; ++i) {
    if (had[i] == 0 || !waits(open[i])) continue;
    for (size_t behind = i + 1; behind < open.size(); ++behind) {
      ASSERT_LE(held(*open[behind]), had[behind]);
    }
  }
}

// Random arrivals and cancels against a pool that is often too small.
void run_load(const Load& load, uint32_t seed) {
  SCOPED_TRACE(load.name + std::string(load.speculate ? ", with drafts" : ""));
  std::mt19937 random(seed);
  const auto up_to = [&](int32_t most) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(most)) + 1;
  };
  const int32_t context = load.blocks * load.block_tokens;
  Bench bench(load.groups, load.counts(), load.block_tokens,
              {load.max_batch, load.step_tokens, load.recompute_above, load.draft_rows()});
  std::vector<Sequence*> open;  // in the scheduler's order
  for (int step = 0; step < 3000 || !open.empty(); ++step) {
    ASSERT_LT(step, 200000) << "someone starves";
    if (step < 3000 && random() % 100 < static_cast<uint32_t>(load.arrivals_per_100_steps)) {
      const int32_t prompt = up_to(context - 1);
      const int32_t priority = load.priorities > 1 ? up_to(load.priorities) : 0;
      const int32_t shared = load.shared > 0 ? up_to(load.shared) : 0;
      Sequence* s = bench.add(prompt, up_to(std::min(context - prompt, 40)), priority, shared);
      open.insert(std::find_if(open.begin(), open.end(),
                               [&](auto* x) { return x->request.priority < priority; }),
                  s);
    }
    if (!open.empty() && random() % 50 == 0) {
      const auto victim = open.begin() + static_cast<std::ptrdiff_t>(random() % open.size());
      bench.scheduler.remove(*victim);
      ASSERT_EQ(held(**victim), 0);
      open.erase(victim);
    }
    std::vector<int32_t> outputs, had;
    for (const Sequence* s : open) {
      outputs.push_back(output_tokens(*s));
      had.push_back(held(*s));
    }
    const Slices slices = bench.step();
    ASSERT_EQ(slices.empty(), open.empty());
    int32_t tokens = 0;
    for (const auto& slice : slices) {
      Sequence* const s = slice.first;
      ASSERT_GT(slice.second, 0);
      tokens += slice.second;
      ASSERT_EQ(std::count_if(slices.begin(), slices.end(), [&](auto& x) { return x.first == s; }),
                1);
    }
    ASSERT_LE(tokens, load.step_tokens);
    ASSERT_LE(static_cast<int32_t>(slices.size()), load.max_batch);
    check_order(bench, load, open, had, slices);
    int32_t used = 0;
    for (size_t i = 0; i < open.size(); ++i) {
      used += held(*open[i]);
      for (const BlockTable& table : open[i]->kv) {  // none for drafts that were wrong
        ASSERT_LE(static_cast<int32_t>(table.blocks.size()) * load.block_tokens,
                  open[i]->known() + load.block_tokens - 1);
      }
      ASSERT_LE(output_tokens(*open[i]) - outputs[i], load.draft_rows() + 1);
      ASSERT_GE(output_tokens(*open[i]), outputs[i]);
    }
    ASSERT_LE(bench.blocks.used(), used);
    ASSERT_TRUE(load.shared > 0 || bench.blocks.used() == used);
    for (Sequence* s : bench.finished) {
      std::erase(open, s);
      ASSERT_EQ(output_tokens(*s), s->request.max_tokens);
    }
    bench.finished.clear();
  }
  EXPECT_EQ(bench.right > 1000, load.draft_rows() > 0) << bench.right;
  EXPECT_EQ(bench.blocks.used(), 0);
  EXPECT_EQ(bench.scheduler.running() + bench.scheduler.waiting(), 0);
  EXPECT_EQ(bench.blocks.hit_tokens() > 100, load.shared > 0) << bench.blocks.hit_tokens();
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
      {"priorities in a tight pool", 8, 4, 8, 16, 20, {{}}, 0, 3},
      {"priorities, few places", 100, 4, 2, 16, 10, {{}}, 0, 4},
      {"priorities and windows", 20, 4, 8, 16, 20, {{}, {.window = 10}}, 0, 2},
      {"computed anew", 20, 4, 8, 16, 20, {{}}, 30},
      {"computed anew in a window", 20, 4, 8, 16, 20, {{.window = 12}, {}}, 30},
      {"shared, tight pool", 6, 4, 8, 16, 30, {{}}, 0, 1, 30},
      {"shared, one block a token", 24, 1, 4, 4, 30, {{}}, 0, 1, 20},
      {"shared, a window", 30, 4, 8, 16, 20, {{.window = 9}}, 0, 1, 100},
      {"shared, alternating windows", 20, 4, 8, 16, 20, {{}, {.window = 10}}, 0, 1, 80},
      {"shared, wide window", 12, 4, 8, 16, 20, {{.window = 40}, {}}, 0, 1, 50},
      {"shared, priorities and windows", 20, 4, 8, 16, 20, {{}, {.window = 10}}, 0, 3, 80},
      {"shared, computed anew in a window", 20, 4, 8, 16, 20, {{.window = 12}, {}}, 30, 1, 80},
  };
  for (const Load& load : loads) {
    Load with_drafts = load;
    with_drafts.speculate = true;
    for (uint32_t seed = 0; seed < 4; ++seed) {
      run_load(load, seed);
      if (seed < 2) run_load(with_drafts, seed);
    }
  }
}

}  // namespace
}  // namespace llorch
