// What a step's arrays are on the device, and whose results come back.
#include "backends/cuda/step_input.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "base/error.h"

namespace llorch::cuda {
namespace {

using Table = std::vector<int32_t>;

constexpr StepLimits kLimits{
    .rows = 12, .sequences = 13, .logit_rows = 8, .vocab = 70, .table_width = 4, .groups = 2};

// Two sequences, of two rows and of one, in two kv groups of blocks of 4 tokens.
struct TwoSequences {
  Table tokens = {11, 12, 21}, positions = {4, 5, 0};
  Table slots = {4, 5, 8, 12, 13, 0};
  Table starts = {0, 2, 3}, lengths = {6, 1};
  Table blocks = {0, 1, 2, -1, -1, 3, 0, -1}, wanted = {1, 2}, rope_len = {7, 7, 3};
  Batch batch{.tokens = tokens,
              .positions = positions,
              .slots = slots,
              .query_start = starts,
              .kv_len = lengths,
              .blocks = blocks,
              .logit_rows = wanted,
              .blocks_per_sequence = 2,
              .rope_len = rope_len};
};

template <class T>
std::vector<T> on_device(const Gpu& gpu, const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  gpu.download(values.data(), from, values.size() * sizeof(T));
  gpu.synchronize();
  return values;
}

TEST(StepInput, PadsAStepWithRowsThatAreNotThere) {
  const Gpu gpu(0);
  StepInput input(gpu, kLimits);
  const TwoSequences step;
  const std::vector<Sampling> sampling = {{.temperature = 0.5f, .top_k = 3, .seed = 9, .index = 4},
                                          {.temperature = 0}};
  const StepSizes sizes{.rows = 6,
                        .sequences = 4,
                        .logit_rows = 3,
                        .table_width = 3,
                        .longest = 12,
                        .most_queries = 6};
  input.send(step.batch, sampling, sizes);
  const StepView view = input.view(sizes);
  EXPECT_EQ(on_device(gpu, view.tokens, 6), (Table{11, 12, 21, 0, 0, 0}));
  EXPECT_EQ(on_device(gpu, view.positions, 6), (Table{4, 5, 0, 0, 0, 0}));
  EXPECT_EQ(on_device(gpu, view.rope_len, 6), (Table{7, 7, 3, 1, 1, 1}));
  EXPECT_EQ(on_device(gpu, view.query_start, 5), (Table{0, 2, 3, 6, 6}));
  EXPECT_EQ(on_device(gpu, view.row_sequence, 6), (Table{0, 0, 1, 2, 2, 2}));
  EXPECT_EQ(on_device(gpu, view.kv_len, 4), (Table{6, 1, 0, 0}));
  EXPECT_EQ(on_device(gpu, view.logit_rows, 3), (Table{1, 2, 0}));
  EXPECT_EQ(on_device(gpu, view.slots[0], 6), (Table{4, 5, 8, -1, -1, -1}));
  EXPECT_EQ(on_device(gpu, view.slots[1], 6), (Table{12, 13, 0, -1, -1, -1}));
  EXPECT_EQ(on_device(gpu, view.blocks[0], 12),
            (Table{0, 1, -1, 2, -1, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(on_device(gpu, view.blocks[1], 12),
            (Table{-1, 3, -1, 0, -1, -1, -1, -1, -1, -1, -1, -1}));
  const auto rows = on_device(gpu, view.sampling, 3);
  EXPECT_EQ(rows[0].temperature, 0.5f);
  EXPECT_EQ(rows[0].top_k, 3);
  EXPECT_EQ(rows[0].seed, 9u);
  EXPECT_EQ(rows[0].index, 4u);
  EXPECT_EQ(rows[0].seen, -1);
  EXPECT_EQ(rows[2].temperature, 0);
}

TEST(StepInput, GivesSequencesOfOneRowPaddingOfOneRow) {
  const Gpu gpu(0);
  StepInput input(gpu, kLimits);
  TwoSequences step;
  step.batch.tokens = step.batch.positions = step.batch.rope_len = std::span(step.tokens).first(2);
  step.batch.slots = std::span(step.slots).first(4);
  const Table starts = {0, 1, 2};
  step.batch.query_start = starts;
  step.batch.logit_rows = {};
  const StepSizes sizes{.rows = 4,
                        .sequences = 4,
                        .logit_rows = 4,
                        .table_width = 2,
                        .longest = 8,
                        .most_queries = 1};
  input.send(step.batch, {}, sizes);
  EXPECT_EQ(on_device(gpu, input.view(sizes).query_start, 5), (Table{0, 1, 2, 3, 4}));
  EXPECT_EQ(on_device(gpu, input.view(sizes).row_sequence, 4), (Table{0, 1, 2, 3}));
}

TEST(StepInput, MarksTheHistoryOfPenalisedRows) {
  const Gpu gpu(0);
  StepInput input(gpu, kLimits);
  const TwoSequences step;
  const Table history = {0, 33, 69, 33};
  const std::vector<Sampling> sampling = {{}, {.repetition_penalty = 1.5f, .history = history}};
  const StepSizes sizes = {.rows = 3,
                           .sequences = 2,
                           .logit_rows = 2,
                           .table_width = 2,
                           .longest = 6,
                           .most_queries = 2};
  input.send(step.batch, sampling, sizes);
  const auto rows = on_device(gpu, input.view(sizes).sampling, 2);
  EXPECT_EQ(rows[0].seen, -1);
  EXPECT_EQ(rows[1].seen, 0);
  EXPECT_EQ(on_device(gpu, input.view(sizes).seen, 3), (std::vector<uint32_t>{1, 2, 1u << 5}));
  const Table unknown = {70};
  const std::vector<Sampling> wrong = {{}, {.repetition_penalty = 2, .history = unknown}};
  EXPECT_THROW(input.send(step.batch, wrong, sizes), Error);
}

// Two steps on their way: each has arrays of its own until it has been read, and results come in
// the order of the steps.
TEST(StepInput, KeepsTwoStepsApart) {
  const Gpu gpu(0);
  StepInput input(gpu, kLimits);
  const StepSizes sizes = {.rows = 3,
                           .sequences = 2,
                           .logit_rows = 2,
                           .table_width = 2,
                           .longest = 6,
                           .most_queries = 2};
  const StepView view = input.view(sizes);
  std::vector<SampledRow> made(2);
  for (int32_t i = 0; i < 2; ++i) {
    TwoSequences step;
    step.tokens[0] = 40 + i;
    input.send(step.batch, std::vector<Sampling>(2), sizes);
    // In place of a step: what it was given is its result.
    gpu.move(&view.sampled[0].token, view.tokens, 4);
    gpu.move(&view.sampled[1].token, view.tokens, 4);
    input.fetch(nullptr, std::vector<Sampling>(2), kLimits.vocab);
  }
  EXPECT_EQ(input.in_flight(), 2);
  for (int32_t i = 0; i < 2; ++i) {
    const auto results = input.results();
    ASSERT_EQ(results.size(), 2u);
    EXPECT_EQ(results[0].token, 40 + i);
  }
  EXPECT_TRUE(input.results().empty());
}

TEST(StepInput, RefusesMoreThanItHasRoomFor) {
  const Gpu gpu(0);
  StepInput input(gpu, kLimits);
  const TwoSequences step;
  StepSizes sizes{.rows = 13, .sequences = 2, .logit_rows = 2, .table_width = 2};
  EXPECT_THROW(input.send(step.batch, std::vector<Sampling>(2), sizes), Error);
  sizes.rows = 3;
  sizes.table_width = 5;
  EXPECT_THROW(input.send(step.batch, std::vector<Sampling>(2), sizes), Error);
}

}  // namespace
}  // namespace llorch::cuda
