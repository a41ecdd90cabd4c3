#include "engine/batch.h"

#include <algorithm>

namespace llorch {

BatchBuilder::BatchBuilder(const BatchLimits& limits) : limits_(limits) {
  const auto rows = static_cast<size_t>(limits.step_tokens);
  const auto sequences = static_cast<size_t>(limits.max_batch);
  const int32_t width = (limits.context + limits.block_tokens - 1) / limits.block_tokens;
  for (auto* per_row : {&tokens_, &positions_, &rope_len_}) per_row->reserve(rows);
  slots_.reserve(limits.kv_groups * rows);
  const size_t wanted = sequences + static_cast<size_t>(limits.draft_rows);
  kv_len_.reserve(sequences);
  logit_rows_.reserve(wanted);
  query_start_.reserve(sequences + 1);
  blocks_.reserve(limits.kv_groups * sequences * static_cast<size_t>(width));
  sampling_.reserve(wanted);
}

void BatchBuilder::clear() {
  for (auto* array : {&tokens_, &positions_, &rope_len_, &slots_, &query_start_, &kv_len_, &blocks_,
                      &logit_rows_}) {
    array->clear();
  }
  sampling_.clear();
  query_start_.push_back(0);
  batch_.blocks_per_sequence = 0;
}

const Batch& BatchBuilder::finish() {
  const int32_t width = batch_.blocks_per_sequence;
  batch_ = {tokens_, positions_,  slots_, query_start_, kv_len_,
            blocks_, logit_rows_, width,  rope_len_};
  return batch_;
}

const Batch& BatchBuilder::build(std::span<const Slice> slices, size_t rows_before) {
  clear();
  size_t width = 0;
  for (const Slice& slice : slices) {
    add_rows(slice);
    for (const BlockTable& table : slice.sequence->kv) width = std::max(width, table.blocks.size());
  }
  batch_.blocks_per_sequence = static_cast<int32_t>(width);
  for (size_t group = 0; group < limits_.kv_groups; ++group) {
    for (const Slice& slice : slices) add_places(slice, group, width);
  }
  finish();
  batch_.rows_before = static_cast<int32_t>(rows_before);
  return batch_;
}

void BatchBuilder::add_places(const Slice& slice, size_t group, size_t width) {
  const Sequence& sequence = *slice.sequence;
  const std::vector<int32_t>& blocks = sequence.kv[group].blocks;
  const int32_t end = sequence.computed + slice.rows();
  for (int32_t position = sequence.computed; position < end; ++position) {
    const int32_t block = blocks[static_cast<size_t>(position / limits_.block_tokens)];
    slots_.push_back(block * limits_.block_tokens + position % limits_.block_tokens);
  }
  blocks_.insert(blocks_.end(), blocks.begin(), blocks.end());
  blocks_.resize(blocks_.size() + width - blocks.size(), -1);
}

void BatchBuilder::add_rows(const Slice& slice) {
  const Sequence& sequence = *slice.sequence;
  const int32_t end = sequence.computed + slice.rows();
  for (int32_t position = sequence.computed; position < end; ++position) {
    tokens_.push_back(sequence.tokens[static_cast<size_t>(position)]);
    positions_.push_back(position);
    rope_len_.push_back(limits_.rope.of_row(sequence, position));
  }
  query_start_.push_back(static_cast<int32_t>(tokens_.size()));
  kv_len_.push_back(end);
  if (slice.wants_token()) add_wanted(slice);
}

// A draft's row is drawn from as if all before it were known.
void BatchBuilder::add_wanted(const Slice& slice) {
  const Sequence& sequence = *slice.sequence;
  const std::span<const int32_t> tokens = sequence.tokens;
  for (int32_t i = 0; i <= sequence.drafts; ++i) {
    const int32_t known = sequence.known() + i;
    logit_rows_.push_back(static_cast<int32_t>(tokens_.size()) - 1 - sequence.drafts + i);
    Sampling sampling = sequence.request.sampling;
    sampling.index = static_cast<uint32_t>(known - sequence.prompt_tokens);
    sampling.history = tokens.first(static_cast<size_t>(known));
    sampling_.push_back(sampling);
  }
}

const Batch& BatchBuilder::largest() {
  clear();
  // One long prompt beside a full batch of decode rows, everyone at the end of the context.
  for (int32_t sequence = 0; sequence < limits_.max_batch; ++sequence) {
    const int32_t rows = sequence == 0 ? limits_.step_tokens - limits_.max_batch + 1 : 1;
    for (int32_t row = 0; row < rows; ++row) {
      tokens_.push_back(0);
      positions_.push_back(std::max(0, limits_.context - rows + row));
      rope_len_.push_back(limits_.context);
    }
    query_start_.push_back(static_cast<int32_t>(tokens_.size()));
    kv_len_.push_back(limits_.context);
    const int32_t last = static_cast<int32_t>(tokens_.size()) - 1;
    const int32_t drafts = sequence == 0 ? limits_.draft_rows : 0;
    for (int32_t row = last - drafts; row <= last; ++row) logit_rows_.push_back(row);
  }
  slots_.assign(limits_.kv_groups * tokens_.size(), -1);
  return finish();
}

}  // namespace llorch
