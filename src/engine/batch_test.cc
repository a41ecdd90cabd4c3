#include "engine/batch.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace llorch {
namespace {

using Ints = std::vector<int32_t>;

Ints ints(std::span<const int32_t> s) { return {s.begin(), s.end()}; }

std::unique_ptr<Sequence> sequence(Ints prompt, Ints output, int32_t computed, Ints blocks) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = 50;
  auto result = std::make_unique<Sequence>(std::move(request));
  result->tokens.insert(result->tokens.end(), output.begin(), output.end());
  result->computed = computed;
  result->kv = {{std::move(blocks), 0}};
  return result;
}

const BatchLimits kLimits{.step_tokens = 12, .max_batch = 3, .context = 64, .block_tokens = 4};

TEST(BatchBuilder, LaysDecodeRowsAndChunksBesideEachOther) {
  const auto decode = sequence({10, 11, 12, 13, 14}, {15}, 5, {7, 2});
  const auto chunk = sequence({20, 21, 22, 23, 24, 25, 26}, {}, 3, {5, 0, 9});
  const auto whole = sequence({30, 31}, {}, 0, {4});
  decode->request.sampling.seed = 99;
  whole->request.sampling.top_k = 3;
  const Slice slices[] = {{decode.get(), 1}, {chunk.get(), 2}, {whole.get(), 2}};
  BatchBuilder builder(kLimits);
  const Batch& batch = builder.build(slices);
  EXPECT_EQ(ints(batch.tokens), (Ints{15, 23, 24, 30, 31}));
  EXPECT_EQ(ints(batch.positions), (Ints{5, 3, 4, 0, 1}));
  EXPECT_EQ(ints(batch.slots), (Ints{2 * 4 + 1, 5 * 4 + 3, 0, 4 * 4, 4 * 4 + 1}));
  EXPECT_EQ(ints(batch.query_start), (Ints{0, 1, 3, 5}));
  EXPECT_EQ(ints(batch.kv_len), (Ints{6, 5, 2}));
  EXPECT_EQ(batch.blocks_per_sequence, 3);
  EXPECT_EQ(ints(batch.blocks), (Ints{7, 2, -1, 5, 0, 9, 4, -1, -1}));
  EXPECT_EQ(ints(batch.logit_rows), (Ints{0, 4}));
  EXPECT_EQ(ints(batch.rope_len), (Ints{6, 7, 7, 2, 2}));
  ASSERT_EQ(builder.sampling().size(), 2u);
  EXPECT_EQ(builder.sampling()[0].seed, 99u);
  EXPECT_EQ(builder.sampling()[0].index, 1u);
  EXPECT_EQ(ints(builder.sampling()[0].history), (Ints{10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(builder.sampling()[1].top_k, 3);
  EXPECT_EQ(builder.sampling()[1].index, 0u);
}

// Its last token is what row 3 of the step in flight gives.
TEST(BatchBuilder, NamesThePendingTokenByItsRow) {
  const auto ahead = sequence({10, 11, 12, 13, 14}, {15, -1 - 3}, 6, {7, 2});
  const Slice slices[] = {{ahead.get(), 1}};
  BatchBuilder builder(kLimits);
  const Batch& batch = builder.build(slices, 5);
  EXPECT_EQ(ints(batch.tokens), Ints{-4});
  EXPECT_EQ(batch.rows_before, 5);
  EXPECT_EQ(ints(batch.positions), Ints{6});
  EXPECT_EQ(builder.sampling()[0].index, 2u);
  EXPECT_EQ(builder.build(slices).rows_before, 0);
}

TEST(BatchBuilder, LaysGroupAfterGroup) {
  const auto a = sequence({10, 11, 12, 13, 14, 15}, {16}, 5, {7, 2});
  const auto b = sequence({20, 21, 22}, {}, 0, {5});
  a->kv.push_back({{-1, 1}, 1});
  b->kv.push_back({{3}, 0});
  const Slice slices[] = {{a.get(), 2}, {b.get(), 3}};
  BatchLimits limits = kLimits;
  limits.kv_groups = 2;
  limits.rope.recompute_above = 9;
  BatchBuilder builder(limits);
  const Batch& batch = builder.build(slices);
  EXPECT_EQ(ints(batch.slots), (Ints{9, 10, 20, 21, 22, 5, 6, 12, 13, 14}));
  EXPECT_EQ(batch.blocks_per_sequence, 2);
  EXPECT_EQ(ints(batch.blocks), (Ints{7, 2, 5, -1, -1, 1, 3, -1}));
  EXPECT_EQ(ints(batch.table(1, 0)), (Ints{-1, 1}));
  EXPECT_EQ(ints(batch.slots_of(1)), (Ints{5, 6, 12, 13, 14}));
  EXPECT_EQ(ints(batch.rope_len), (Ints{7, 7, 3, 3, 3}));
  EXPECT_EQ(ints(builder.largest().slots), Ints(24, -1));
}

// Each is asked for as if the tokens before it were known already.
TEST(BatchBuilder, LaysDraftsBehindWhatIsKnown) {
  const auto drafting = sequence({10, 11, 12, 13, 14}, {15}, 5, {7, 2});
  const auto chunk = sequence({20, 21, 22}, {}, 0, {5});
  drafting->tokens.insert(drafting->tokens.end(), {16, 17});
  drafting->drafts = 2;
  drafting->request.sampling.seed = 99;
  const Slice slices[] = {{drafting.get(), 1}, {chunk.get(), 3}};
  BatchLimits limits = kLimits;
  limits.draft_rows = 3;
  BatchBuilder builder(limits);
  const Batch& batch = builder.build(slices);
  EXPECT_EQ(ints(batch.tokens), (Ints{15, 16, 17, 20, 21, 22}));
  EXPECT_EQ(ints(batch.positions), (Ints{5, 6, 7, 0, 1, 2}));
  EXPECT_EQ(ints(batch.slots), (Ints{9, 10, 11, 20, 21, 22}));
  EXPECT_EQ(ints(batch.query_start), (Ints{0, 3, 6}));
  EXPECT_EQ(ints(batch.kv_len), (Ints{8, 3}));
  EXPECT_EQ(ints(batch.rope_len), (Ints{6, 7, 8, 3, 3, 3}));
  EXPECT_EQ(ints(batch.logit_rows), (Ints{0, 1, 2, 5}));
  ASSERT_EQ(builder.sampling().size(), 4u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(builder.sampling()[i].seed, 99u);
    EXPECT_EQ(builder.sampling()[i].index, 1 + i);
    EXPECT_EQ(builder.sampling()[i].history.size(), 6 + i);
    EXPECT_EQ(builder.sampling()[i].history.back(), static_cast<int32_t>(15 + i));
  }
  EXPECT_EQ(builder.sampling()[3].index, 0u);
  EXPECT_EQ(ints(builder.largest().logit_rows), (Ints{6, 7, 8, 9, 10, 11}));
}

TEST(BatchBuilder, ContinuesIndexAndHistoryAfterPreemption) {
  const auto again = sequence({10, 11}, {12, 13, 14}, 0, {0, 1});
  const Slice slices[] = {{again.get(), 5}};
  BatchBuilder builder(kLimits);
  builder.build(slices);
  ASSERT_EQ(builder.sampling().size(), 1u);
  EXPECT_EQ(builder.sampling()[0].index, 3u);
  EXPECT_EQ(builder.sampling()[0].history.size(), 5u);
}

TEST(BatchBuilder, ReusesItsArrays) {
  const auto s = sequence({1, 2, 3}, {}, 0, {0});
  const Slice slices[] = {{s.get(), 3}};
  BatchBuilder builder(kLimits);
  const int32_t* before = builder.largest().tokens.data();
  const Batch& batch = builder.build(slices);
  EXPECT_EQ(batch.tokens.data(), before);
  EXPECT_EQ(batch.tokens.size(), 3u);
  EXPECT_EQ(batch.query_start.size(), 2u);
}

TEST(BatchBuilder, MeasuresAFullStepAtTheEndOfTheContext) {
  BatchBuilder builder(kLimits);
  const Batch& batch = builder.largest();
  EXPECT_EQ(batch.tokens.size(), 12u);
  EXPECT_EQ(ints(batch.slots), Ints(12, -1));
  EXPECT_EQ(ints(batch.query_start), (Ints{0, 10, 11, 12}));
  EXPECT_EQ(ints(batch.kv_len), (Ints{64, 64, 64}));
  EXPECT_EQ(ints(batch.rope_len), Ints(12, 64));
  EXPECT_EQ(ints(batch.logit_rows), (Ints{9, 10, 11}));
  EXPECT_EQ(batch.positions[0], 54);
  EXPECT_EQ(batch.positions[9], 63);
  EXPECT_EQ(batch.positions[11], 63);
}

}  // namespace
}  // namespace llorch
