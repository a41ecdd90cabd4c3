// Which recorded step stands in for which batch.
#include "backends/cuda/step_graphs.h"

#include <gtest/gtest.h>

#include <numeric>

namespace llorch::cuda {
namespace {

constexpr int32_t kBlockTokens = 16;

// Sequences of so many rows each, the first of which sees `longest` tokens.
struct Step {
  Step(const std::vector<int32_t>& rows, int32_t longest) {
    for (const int32_t count : rows) starts.push_back(starts.back() + count);
    lengths.assign(rows.size(), 1);
    lengths[0] = longest;
    tokens.resize(static_cast<size_t>(starts.back()));
    wanted.resize(tokens.size());
    batch = {.tokens = tokens,
             .positions = tokens,
             .slots = tokens,
             .query_start = starts,
             .kv_len = lengths,
             .blocks = {},
             .logit_rows = wanted};
  }
  Step(const Step&) = delete;
  std::vector<int32_t> starts = {0}, lengths, tokens, wanted;
  Batch batch;
};

StepGraphs recorded(const StepLimits& limits, int32_t longest) {
  const Gpu gpu(0);
  StepGraphs graphs;
  for (const StepSizes& sizes : StepGraphs::buckets(limits, kBlockTokens, longest)) {
    Graph::begin(gpu);
    graphs.add(sizes, Graph::end(gpu));
  }
  return graphs;
}

constexpr StepLimits kRoomy{
    .rows = 512, .sequences = 513, .logit_rows = 64, .table_width = 600, .groups = 1};

TEST(StepGraphs, PadToTheSmallestThatHolds) {
  const StepGraphs graphs = recorded(kRoomy, 9000);
  StepSizes sizes;
  const auto find = [&](const std::vector<int32_t>& rows, int32_t longest) {
    const Step step(rows, longest);
    return graphs.find(step.batch, &sizes) != nullptr;
  };
  ASSERT_TRUE(find({1}, 10));
  EXPECT_EQ(sizes.rows, 1);
  EXPECT_EQ(sizes.longest, 1024);
  EXPECT_EQ(sizes.table_width, 1024 / kBlockTokens);
  ASSERT_TRUE(find({1, 1, 1, 1, 1}, 1025));
  EXPECT_EQ(sizes.rows, 6);
  EXPECT_EQ(sizes.sequences, 6);
  EXPECT_EQ(sizes.most_queries, 1);
  EXPECT_EQ(sizes.longest, 4096);
  ASSERT_TRUE(find({1}, 8999));
  EXPECT_EQ(sizes.longest, 9000);
  EXPECT_FALSE(find({1}, 9001));
  // Drafts: a sequence of several rows; padding rows are a sequence more.
  ASSERT_TRUE(find({3, 1, 1}, 10));
  EXPECT_EQ(sizes.rows, 6);
  EXPECT_GE(sizes.sequences, 4);
  EXPECT_GE(sizes.most_queries, 3);
  EXPECT_FALSE(find({65}, 100));
  EXPECT_FALSE(find(std::vector<int32_t>(65, 1), 100));
}

TEST(StepGraphs, StayWithinWhatAStepMayHave) {
  for (const StepLimits& limits :
       {StepLimits{.rows = 7, .sequences = 8, .logit_rows = 3, .table_width = 4, .groups = 2},
        StepLimits{.rows = 64, .sequences = 5, .logit_rows = 64, .table_width = 4, .groups = 1}}) {
    const auto all = StepGraphs::buckets(limits, kBlockTokens, 64);
    EXPECT_FALSE(all.empty());
    for (const StepSizes& sizes : all) {
      EXPECT_LE(sizes.rows, limits.rows);
      EXPECT_LE(sizes.sequences, limits.sequences);
      EXPECT_LE(sizes.logit_rows, limits.logit_rows);
      EXPECT_LE(sizes.table_width, limits.table_width);
    }
  }
}

TEST(StepGraphs, ManyWantedRowsAreNotCutOff) {
  const StepGraphs graphs = recorded(
      {.rows = 64, .sequences = 65, .logit_rows = 3, .table_width = 64, .groups = 1}, 1000);
  StepSizes sizes;
  EXPECT_EQ(graphs.find(Step({1, 1, 1, 1}, 5).batch, &sizes), nullptr);
  EXPECT_NE(graphs.find(Step({1, 1, 1}, 5).batch, &sizes), nullptr);
}

}  // namespace
}  // namespace llorch::cuda
