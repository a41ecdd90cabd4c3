#include "backends/cuda/step_graphs.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace llorch::cuda {
namespace {

// Rows of steps that are replayed. Padding costs little: such a step reads weights.
constexpr int32_t kRows[] = {1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64};
// What rows may see: an attention kernel is started for so many tokens, and ends early where a row
// sees less.
constexpr int32_t kShortest = 1024, kGrowth = 4;

int32_t longest_row(const Batch& batch) {
  return batch.kv_len.empty() ? 0 : std::ranges::max(batch.kv_len);
}

int32_t most_queries(const Batch& batch) {
  int32_t most = 0;
  for (size_t s = 0; s + 1 < batch.query_start.size(); ++s) {
    most = std::max(most, batch.query_start[s + 1] - batch.query_start[s]);
  }
  return most;
}

}  // namespace

StepSizes sizes_of(const Batch& batch) {
  return {.rows = static_cast<int32_t>(batch.tokens.size()),
          .sequences = static_cast<int32_t>(batch.kv_len.size()),
          .logit_rows = static_cast<int32_t>(batch.logit_rows.size()),
          .table_width = batch.blocks_per_sequence,
          .longest = longest_row(batch),
          .most_queries = most_queries(batch)};
}

std::vector<StepSizes> StepGraphs::buckets(const StepLimits& limits, int32_t block_tokens,
                                           int32_t longest) {
  std::vector<StepSizes> all;
  for (int64_t tokens = kShortest;; tokens *= kGrowth) {
    const auto seen = static_cast<int32_t>(std::min<int64_t>(tokens, longest));
    for (const int32_t rows : kRows) {
      for (const bool one_row : {true, false}) {
        // Where sequences have several rows, padding has a sequence of its own.
        const StepSizes sizes{.rows = rows,
                              .sequences = one_row ? rows : rows + 1,
                              .logit_rows = std::min(rows, limits.logit_rows),
                              .table_width = (seen + block_tokens - 1) / block_tokens,
                              .longest = seen,
                              .most_queries = one_row ? 1 : rows};
        if (rows > limits.rows || sizes.sequences > limits.sequences || (!one_row && rows == 1)) {
          continue;
        }
        all.push_back(sizes);
      }
    }
    if (seen >= longest) return all;
  }
}

void StepGraphs::add(const StepSizes& sizes, Graph graph) {
  graphs_.insert_or_assign(Key{sizes.longest, sizes.most_queries > 1, sizes.rows},
                           std::pair(sizes, std::move(graph)));
}

const Graph* StepGraphs::find(const Batch& batch, StepSizes* sizes) const {
  const StepSizes want = sizes_of(batch);
  const bool several = want.most_queries > 1 || want.sequences != want.rows;
  for (const auto& [key, entry] : graphs_) {  // the shortest that is long enough first
    const StepSizes& has = entry.first;
    if (key.several_rows != several || has.longest < want.longest || has.rows < want.rows ||
        has.sequences < want.sequences + (several && has.rows > want.rows) ||
        has.logit_rows < want.logit_rows) {
      continue;
    }
    *sizes = has;
    return &entry.second;
  }
  return nullptr;
}

}  // namespace llorch::cuda
