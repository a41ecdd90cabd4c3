// Attention against the oracle, and its one answer: the same bits however rows are spread.
#include <limits>

#include "backends/cuda/attention_test_rig.h"
#include "gtest/gtest.h"

namespace llorch::cuda {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Steps of four sequences. What falls out of the window is given up, and soon full of NaN.
class Growth {
 public:
  explicit Growth(const Case& c, bool exact = false)
      : rig_(c, kSequences, kLength), exact_(exact && c.rope_dims == 0 && !c.norms) {}

  // `rows[s]` more rows of sequence s, each followed by so many of padding.
  void step(const std::vector<int>& rows, int padding = 0, const Room& room = {}) {
    std::vector<Part> parts;
    for (int s = 0; s < kSequences; ++s) {
      const int count = rows[static_cast<size_t>(s)];
      if (count == 0) continue;
      drop_unseen(s);
      parts.push_back({s, lengths_[s], rig_.random_rows(count, exact_)});
      lengths_[s] += count;
      if (padding > 0) parts.push_back({s, 0, nans(padding), true});
    }
    const Matrix want = rig_.want(parts), got = rig_.run(parts, room);
    int row = 0;
    for (const Part& part : parts) {
      for (int i = 0; i < part.qkv.rows; ++i, ++row) {
        const double bound = part.padding ? 0 : rig_.bound(part.qkv, i, part.sequence, exact_);
        for (int c = 0; c < want.cols; ++c) {
          ASSERT_LE(std::abs(double{got.at(row, c)} - double{want.at(row, c)}), bound)
              << "sequence " << part.sequence << ", position " << part.position + i << ", column "
              << c << ": got " << got.at(row, c) << ", want " << want.at(row, c);
        }
      }
    }
    for (; row < got.rows; ++row) {
      for (int c = 0; c < got.cols; ++c) ASSERT_EQ(got.at(row, c), 0);
    }
    poison();
  }

 private:
  static constexpr int kSequences = 4, kLength = 200;

  Matrix nans(int rows) {
    Matrix m(rows, rig_.cols());
    std::ranges::fill(m.values, kNaN);
    return m;
  }

  void drop_unseen(int s) {
    const Case& c = rig_.facts();
    if (c.window == 0) return;
    for (int i = 0; i < std::max(0, lengths_[s] - c.window + 1) / c.block_tokens; ++i) {
      int32_t& block = rig_.table(s)[static_cast<size_t>(i)];
      if (block >= 0) unseen_.push_back(std::exchange(block, -1));
    }
  }

  // Another sequence takes what was given up, and puts NaNs there.
  void poison() {
    const int per = rig_.facts().block_tokens;
    for (const int32_t block : std::exchange(unseen_, {})) {
      const int32_t kept = std::exchange(rig_.table(0)[0], block);
      rig_.run({{0, 0, nans(per)}});
      rig_.table(0)[0] = kept;
    }
  }

  AttentionRig rig_;
  const bool exact_;
  int lengths_[kSequences] = {};
  std::vector<int32_t> unseen_;
};

void check(const Case& c, bool exact = false) {
  SCOPED_TRACE(testing::Message() << c);
  Growth run(c, exact);
  run.step({37, 0, 1, 0});
  run.step({1, 17, 1, 2});
  run.step({1, 1, 1, 1}, 1);
  run.step({3, 1, 5, 0}, 2);
  run.step({1, 1, 62, 1}, 0, {.rows = 70, .sequences = 9, .longest = 700, .most_queries = 70});
  run.step({66, 1, 0, 3}, 0, {.split = false});
  run.step({1, 1, 1, 1}, 0, {.rows = 8, .sequences = 8, .longest = 1024});
}

TEST(Attention, OverHeadsAndDims) {
  for (const DType type : kKvTypes) {
    check({1, 1, 6, 4, type, 6});
    check({3, 3, 20, 16, type, 20});
    check({4, 2, 64, 16, type, 64});
    check({8, 2, 80, 5, type, 24});
  }
}

TEST(Attention, OverLargeHeads) {
  check({8, 1, 128, 16, DType::kBF16, 128});
  check({2, 1, 256, 32, DType::kBF16, 256});
  check({2, 1, 128, 16, DType::kF8E4M3, 128});
  check({2, 1, 256, 32, DType::kQ8_0, 256});
  check({2, 1, 256, 32, DType::kF32, 256});
}

TEST(Attention, OfManyHeadsToOneKvHead) {
  check({20, 1, 16, 16, DType::kF32, 8});
  check({20, 1, 16, 16, DType::kBF16, 8});
  check({71, 1, 16, 1, DType::kBF16, 8});
}

// Inputs that bf16 holds: weights alone are rounded, and errors bound closer.
TEST(Attention, OfExactInputs) {
  for (const DType type : kKvTypes) {
    check({4, 4, 24, 5, type}, true);
    check({4, 2, 72, 16, type}, true);
  }
}

TEST(Attention, WithRopeOfSomeDims) {
  check({4, 2, 80, 16, DType::kF32, 32});
  check({4, 2, 20, 16, DType::kF32, 10, true});
  check({2, 2, 64, 16, DType::kBF16, 64, true});
}

TEST(Attention, InAWindow) {
  for (const int window : {1, 2, 33, 63, 64, 65, 200}) {
    check({4, 2, 16, 4, DType::kF32, 16, false, window});
    check({2, 2, 32, 16, DType::kBF16, 0, false, window}, true);
  }
  check({4, 1, 20, 1, DType::kF16, 20, false, 7});
  check({4, 2, 40, 4, DType::kQ8_0, 40, false, 33});
}

TEST(Attention, WithRopesThatDependOnTheLength) {
  for (const double ntk_factor : {0.0, 2.5}) {
    check({4, 2, 16, 4, DType::kF32, 16, false, 0, 0, false, false, 40, ntk_factor});
    check({2, 1, 64, 16, DType::kBF16, 64, true, 0, 0, false, false, 1, ntk_factor});
  }
}

TEST(Attention, WithSoftcapAndHeadNorms) {
  check({4, 2, 32, 16, DType::kF32, 32, false, 0, 1.5f});
  check({4, 2, 32, 16, DType::kF32, 32, false, 20, 50});
  for (const bool layer : {false, true}) {
    check({4, 2, 20, 16, DType::kF32, 20, false, 0, 0, true, layer});
    check({4, 1, 64, 16, DType::kBF16, 64, false, 40, 2.5f, true, layer});
    check({4, 1, 64, 16, DType::kQ8_0, 64, false, 40, 2.5f, true, layer});
  }
}

// A row that sees one token gives that token's values; those of 8 bits as f16 holds them.
TEST(Attention, StoresWhatRoundRowSays) {
  for (const DType type : kKvTypes) {
    for (const int head_dim : {24, 64, 80}) {
      AttentionRig rig({1, 1, head_dim, 4, type}, 1, 4);
      for (const float factor : {1.0f, 1e-6f, 3e4f, 0.0f}) {
        Matrix qkv = rig.random_rows(1);
        for (float& v : qkv.values) v *= factor;
        std::vector<float> want(qkv.values.end() - head_dim, qkv.values.end());
        round_row(want, type);
        if (type == DType::kQ8_0 || type == DType::kF8E4M3) round_row(want, DType::kF16);
        const Matrix got = rig.run({{0, 0, qkv}});
        for (int c = 0; c < head_dim; ++c) {
          ASSERT_EQ(got.at(0, c), want[static_cast<size_t>(c)]) << name(type) << " " << factor;
        }
      }
      Matrix qkv = rig.random_rows(1);
      qkv.values.back() = std::numeric_limits<float>::infinity();
      const Matrix got = rig.run({{0, 0, qkv}});
      EXPECT_FALSE(std::isfinite(got.at(0, head_dim - 1)));
    }
  }
}

// All of a sequence's rows, in steps of so many, alone or among others.
std::vector<float> in_steps(const Case& c, const Matrix& qkv, const std::vector<int>& steps,
                            const Room& room, int others = 0) {
  AttentionRig rig(c, 1 + others, qkv.rows + 1);
  std::vector<float> all;
  int done = 0;
  for (size_t i = 0; done < qkv.rows; ++i) {
    const int count = std::min(steps[i % steps.size()], qkv.rows - done);
    Matrix rows(count, qkv.cols);
    std::copy_n(qkv.values.begin() + int64_t{done} * qkv.cols, rows.values.size(),
                rows.values.begin());
    std::vector<Part> parts;
    for (int o = 0; o < others; ++o) {
      const int more = o % 2 == 0 ? 1 : static_cast<int>(i % 11);
      if (done + more <= qkv.rows) parts.push_back({1 + o, done, rig.random_rows(more)});
    }
    const auto at = static_cast<size_t>(others == 0 ? 0 : others / 2);
    parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(std::min(at, parts.size())),
                 {0, done, rows});
    const Matrix got = rig.run(parts, room);
    int first = 0;
    for (const Part& part : parts) {
      if (part.sequence == 0) break;
      first += part.qkv.rows;
    }
    all.insert(all.end(), got.values.begin() + int64_t{first} * got.cols,
               got.values.begin() + int64_t{first + count} * got.cols);
    done += count;
  }
  return all;
}

void check_one_answer(const Case& c, int length) {
  SCOPED_TRACE(testing::Message() << c);
  AttentionRig numbers(c, 1, 1);
  const Matrix qkv = numbers.random_rows(length);
  const auto want = bits_of_all(in_steps(c, qkv, {length}, {.split = false}));
  const Room graph{.rows = 40, .sequences = 12, .longest = 512, .most_queries = 40};
  EXPECT_TRUE(bits_of_all(in_steps(c, qkv, {70, 1, 1, 1}, {})) == want) << "split";
  EXPECT_TRUE(bits_of_all(in_steps(c, qkv, {1, 1, 33, 2}, {.split = false})) == want) << "whole";
  EXPECT_TRUE(bits_of_all(in_steps(c, qkv, {40, 3, 1, 9}, {}, 3)) == want) << "among others";
  EXPECT_TRUE(bits_of_all(in_steps(c, qkv, {8, 40, 7}, graph)) == want) << "in a graph";
  Case other = c;
  other.block_tokens = 7;
  EXPECT_TRUE(bits_of_all(in_steps(other, qkv, {64, 1, 1}, {})) == want) << "other blocks";
}

TEST(Attention, HasTheSameBitsHoweverRowsAreSpread) {
  check_one_answer({4, 2, 20, 16, DType::kF32, 20}, 150);
  check_one_answer({4, 1, 32, 16, DType::kBF16, 32}, 200);
  check_one_answer({2, 2, 32, 4, DType::kQ8_0, 32}, 150);
  check_one_answer({4, 2, 32, 16, DType::kF8E4M3, 32, false, 70}, 150);
  check_one_answer({2, 1, 64, 16, DType::kF16, 64, false, 0, 5}, 140);
  check_one_answer({3, 1, 256, 16, DType::kBF16, 32}, 90);
}

// Decoded rows with many tiles, split in as many ways as there is room for.
TEST(Attention, HasTheSameBitsAtLength) {
  constexpr int kLength = 1500;
  for (const Case& c : {Case{2, 1, 32, 16, DType::kF32}, Case{2, 1, 32, 16, DType::kBF16},
                        Case{4, 1, 64, 5, DType::kF8E4M3, 64, false, 0, 3}}) {
    AttentionRig rig(c, 2, kLength + 2);
    rig.set_window(1);
    rig.run({{0, 0, rig.random_rows(kLength)}});
    rig.set_window(0);
    const Part last{0, kLength, rig.random_rows(1)}, other{1, 0, rig.random_rows(20)};
    std::vector<std::vector<uint32_t>> rows;
    for (const Room& room :
         {Room{.split = false}, Room{}, Room{.longest = 1 << 14},
          Room{.rows = 4, .sequences = 5, .longest = 1 << 14, .most_queries = 4}}) {
      for (const auto& parts : {std::vector<Part>{last}, {other, last}}) {
        const Matrix got = rig.run(parts, room);
        const auto end = got.values.begin() + got.cols * (parts.size() == 1 ? 1 : 21);
        rows.push_back(bits_of_all({end - got.cols, end}));
      }
    }
    for (const auto& row : rows) EXPECT_TRUE(row == rows[0]) << name(c.type);
  }
}

// A token that is not finite is nothing to rows before it, though they share its tile.
TEST(Attention, KeepsWhatIsNotFiniteFromRowsBefore) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kQ8_0}) {
    const Case c{2, 1, 32, 16, type};
    AttentionRig rig(c, 1, 64), clean(c, 1, 64);
    Matrix qkv = rig.random_rows(40), head(30, qkv.cols);
    std::copy_n(qkv.values.begin(), head.values.size(), head.values.begin());
    for (int col = 64; col < qkv.cols; ++col) qkv.at(30, col) = kNaN;
    const Matrix got = rig.run({{0, 0, qkv}}), want = clean.run({{0, 0, head}});
    const std::vector<float> before(got.values.begin(), got.values.begin() + 30 * got.cols);
    EXPECT_TRUE(bits_of_all(before) == bits_of_all(want.values)) << name(type);
    for (int c2 = 0; c2 < got.cols; ++c2) EXPECT_FALSE(std::isfinite(got.at(35, c2)));
  }
}

TEST(Attention, TellsHeadsThatAreTooLarge) {
  const KvSpec spec{.groups = {{.layers = 1}},
                    .kv_heads = 1,
                    .head_dim = 257,
                    .block_tokens = 16,
                    .type = DType::kBF16};
  EXPECT_THROW(kv_block_bytes(spec), std::runtime_error);
}

TEST(Attention, TakesTheBytesThatItsTypeTakes) {
  for (const DType type : kKvTypes) {
    const KvSpec spec{
        .groups = {{.layers = 1}}, .kv_heads = 2, .head_dim = 40, .block_tokens = 16, .type = type};
    EXPECT_EQ(kv_block_bytes(spec), int64_t{2 * 2 * 16} * int64_t(row_bytes(type, 64)));
  }
}

}  // namespace
}  // namespace llorch::cuda
