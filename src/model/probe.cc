#include "model/probe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace llorch {

using ref::Matrix;

namespace {

constexpr int kSums = 256;  // of a row, at most

// A hash, so that it has no period which is a layout's too.
float sign_of(int column) {
  uint64_t x = (static_cast<uint64_t>(column) + 1) * 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
  return x >> 63 ? -1.0f : 1.0f;
}

Matrix not_a_number(int cols) {
  Matrix m(Probe::kRows, cols);
  std::ranges::fill(m.values, std::numeric_limits<float>::quiet_NaN());
  return m;
}

}  // namespace

Probe::Probe(Backend& backend, const KvSpec& kv, std::span<const int32_t> tokens,
             int32_t logit_rows, int32_t vocab)
    : backend_(backend),
      logit_rows_(std::clamp(logit_rows, 1, kRows)),
      vocab_(vocab),
      table_width_((kRows - 1) / kv.block_tokens + 1),
      groups_(kv.groups.size()),
      tokens_(tokens.begin(), tokens.end()),
      rows_(kRows),
      rope_len_(kRows, kRows) {
  CHECK(tokens.size() == size_t{kRows});
  std::iota(rows_.begin(), rows_.end(), 0);
  for (size_t group = 0; group < groups_; ++group) {
    for (int32_t block = 0; block < table_width_; ++block) blocks_.push_back(block);
  }
}

int Probe::sums_of(int cols) const { return std::min({kSums, vocab_, cols}); }

Matrix Probe::add_up(const Matrix& values) const {
  Matrix sums(values.rows, sums_of(values.cols));
  for (int r = 0; r < values.rows; ++r) {
    std::vector<double> row(static_cast<size_t>(sums.cols));
    for (int c = 0; c < values.cols; ++c) {
      row[static_cast<size_t>(c % sums.cols)] += double{values.at(r, c)} * double{sign_of(c)};
    }
    for (int j = 0; j < sums.cols; ++j) {
      sums.at(r, j) = static_cast<float>(row[static_cast<size_t>(j)]);
    }
  }
  return sums;
}

Matrix Probe::add_up_squares(const Matrix& values) const {
  Matrix sums(values.rows, sums_of(values.cols));
  for (int r = 0; r < values.rows; ++r) {
    for (int c = 0; c < values.cols; ++c) {
      float& sum = sums.at(r, c % sums.cols);
      sum = std::hypot(sum, values.at(r, c));
    }
  }
  return sums;
}

Weight Probe::table(const Matrix& values) {
  const RawTensor raw{
      "parity", DType::kF32, {values.rows, values.cols}, std::as_bytes(std::span(values.values))};
  return backend_.pack({&raw, 1}, DType::kF32);
}

const Weight& Probe::head(int cols) {
  Weight& head = heads_[cols];
  if (!head) {
    Matrix values(sums_of(cols), cols);
    for (int c = 0; c < cols; ++c) values.at(c % values.rows, c) = sign_of(c);
    head = table(values);
  }
  return head;
}

Matrix Probe::sums(std::span<const Matrix* const> inputs, int cols, const Op& op) {
  const Weight& sums = head(cols);
  return run(inputs, sums.shape.rows, [&](Ops& ops, std::span<const Tensor> tensors) {
    return ops.logits(op(ops, tensors), sums);
  });
}

Matrix Probe::logits(const Matrix& x, const Op& op) {
  const Matrix* const inputs[] = {&x};
  return run(inputs, vocab_, op);
}

Matrix Probe::sums_of_steps(int cols, const std::function<Tensor(Ops&)>& step) {
  const Weight& sums = head(cols);
  const Forward f = [&](Ops& ops) { return ops.logits(step(ops), sums); };
  Matrix out = not_a_number(sums.shape.rows);
  run_rows(f, tokens_, 0, kRows / 2, &out);
  for (int32_t row = kRows / 2; row < kRows; ++row) run_rows(f, tokens_, row, row + 1, &out);
  return out;
}

Matrix Probe::run(std::span<const Matrix* const> inputs, int cols, const Op& op) {
  std::vector<Weight> tables;
  tables.reserve(inputs.size());
  for (const Matrix* input : inputs) tables.push_back(table(*input));
  const Forward f = [&](Ops& ops) {
    std::vector<Tensor> tensors;
    tensors.reserve(tables.size());
    for (const Weight& weight : tables) tensors.push_back(ops.embed(weight));
    return op(ops, tensors);
  };
  Matrix out = not_a_number(cols);
  run_rows(f, inputs.empty() ? tokens_ : rows_, 0, kRows, &out);
  return out;
}

void Probe::run_rows(const Forward& f, std::span<const int32_t> tokens, int32_t first, int32_t end,
                     Matrix* out) {
  const auto at = static_cast<size_t>(first), count = static_cast<size_t>(end - first);
  const auto positions = std::span(rows_).subspan(at, count);
  std::vector<int32_t> slots;
  for (size_t group = 0; group < groups_; ++group) {
    slots.insert(slots.end(), positions.begin(), positions.end());
  }
  const int32_t query_start[] = {0, end - first}, kv_len[] = {end};
  for (size_t row = 0; row < count; row += static_cast<size_t>(logit_rows_)) {
    const auto wanted =
        std::span(rows_).subspan(row, std::min(static_cast<size_t>(logit_rows_), count - row));
    const std::vector<Sampling> sampling(wanted.size(), {.temperature = 0, .keep_logits = true});
    backend_.submit(f,
                    {.tokens = tokens.subspan(at, count),
                     .positions = positions,
                     .slots = slots,
                     .query_start = query_start,
                     .kv_len = kv_len,
                     .blocks = blocks_,
                     .logit_rows = wanted,
                     .blocks_per_sequence = table_width_,
                     .rope_len = std::span(rope_len_).subspan(at, count)},
                    sampling);
    const std::vector<Sampled> results = backend_.collect();
    for (size_t i = 0; i < results.size(); ++i) {
      const size_t place = (at + row + i) * static_cast<size_t>(out->cols);
      std::ranges::copy(results[i].logits,
                        out->values.begin() + static_cast<std::ptrdiff_t>(place));
    }
  }
}

}  // namespace llorch
