// Asks a device what an op gives for inputs that the host chooses, by the seam that every step goes
// through: inputs come by embed(), from a table that holds them; results leave by logits(), from a
// head that adds up elements of a row. Knows no model and no oracle.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "ops/backend.h"
#include "ops/ref_ops.h"

namespace llorch {

class Probe {
 public:
  static constexpr int kRows = 8;  // of every step: one sequence, from position 0 on

  // `tokens`: kRows of them. Block 0 and on of every kv group are written to; of `logit_rows` rows
  // and `vocab` columns, as prepare() saw them, no step asks for more.
  Probe(Backend& backend, const KvSpec& kv, std::span<const int32_t> tokens, int32_t logit_rows,
        int32_t vocab);

  using Op = std::function<Tensor(Ops&, std::span<const Tensor> inputs)>;
  // What add_up() would give of the op's result, which has `cols` columns. An op without inputs
  // begins with the tokens. A row that is not finite is NaN.
  ref::Matrix sums(std::span<const ref::Matrix* const> inputs, int cols, const Op& op);
  // The same of a whole step without its head: of half the tokens, then of one after the other.
  ref::Matrix sums_of_steps(int cols, const std::function<Tensor(Ops&)>& step);
  // Of an op that ends in logits itself: all of them.
  ref::Matrix logits(const ref::Matrix& x, const Op& op);

  // Sum j of a row is made of its elements j, j + sums, j + 2 sums ..., each added or subtracted.
  int sums_of(int cols) const;
  ref::Matrix add_up(const ref::Matrix& values) const;
  // The root of the squares of the same elements.
  ref::Matrix add_up_squares(const ref::Matrix& values) const;
  std::span<const int32_t> rope_len() const { return rope_len_; }

 private:
  Weight table(const ref::Matrix& values);
  const Weight& head(int cols);
  ref::Matrix run(std::span<const ref::Matrix* const> inputs, int cols, const Op& op);
  // A step of rows [first, end), which logits of each go to a row of `out`.
  void run_rows(const Forward& f, std::span<const int32_t> tokens, int32_t first, int32_t end,
                ref::Matrix* out);

  Backend& backend_;
  const int32_t logit_rows_, vocab_, table_width_;
  const size_t groups_;
  std::vector<int32_t> tokens_, rows_, blocks_, rope_len_;
  std::map<int, Weight> heads_;  // by columns
};

}  // namespace llorch
