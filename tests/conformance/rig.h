// Runs ops on the linked backend through its public interface alone, and says how far a result may
// be from the oracle's. A step must end in logits(), so results leave by an identity head.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "ops/backend.h"
#include "ops/dtype.h"
#include "ops/ref_ops.h"
#include "ops/test_numbers.h"

namespace llorch {

using ref::Matrix;

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
// f8_e4m3 where the linked backend has it.
inline const std::vector<DType> kKvTypes = [] {
  std::vector<DType> types = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0};
  if (kBackendInfo.f8) types.push_back(DType::kF8E4M3);
  return types;
}();

inline Matrix random_matrix(int rows, int cols, uint32_t seed, double scale = 1) {
  Matrix m(rows, cols);
  m.values = TestNumbers(seed).floats(m.values.size(), scale);
  return m;
}

inline Matrix identity_matrix(int n) {
  Matrix one(n, n);
  for (int i = 0; i < n; ++i) one.at(i, i) = 1;
  return one;
}

// `values` as a checkpoint of `type` holds them.
inline std::vector<std::byte> bytes_of(const std::vector<float>& values, DType type) {
  std::vector<std::byte> bytes(values.size() * size_bytes(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = type == DType::kF16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
    if (type == DType::kF32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else {
      std::memcpy(&bytes[i * 2], &half, 2);
    }
  }
  return bytes;
}

// A weight of the backend and what the oracle takes for it: the values after rounding.
struct Pair {
  Weight weight;
  Matrix values;
  std::vector<float> bias;
};

using Table = std::vector<int32_t>;

// One step's arrays, built sequence by sequence.
struct Rows {
  explicit Rows(size_t kv_groups = 1) : groups(kv_groups) {}

  // A sequence with `count` rows from `position` on; `tables` names its blocks of `per_block`
  // tokens, for each kv group.
  void add(const std::vector<int32_t>& ids, int32_t position, std::vector<Table> tables,
           int32_t per_block) {
    for (const int32_t id : ids) {
      tokens.push_back(id);
      positions.push_back(position);
      for (size_t g = 0; g < groups.size(); ++g) {
        groups[g].slots.push_back(tables[g][static_cast<size_t>(position / per_block)] * per_block +
                                  position % per_block);
      }
      ++position;
    }
    close(position, std::move(tables));
  }
  // The same blocks in all groups.
  void add(const std::vector<int32_t>& ids, int32_t position, const Table& table,
           int32_t per_block) {
    add(ids, position, std::vector<Table>(groups.size(), table), per_block);
  }
  // A sequence of rows that are not there.
  void add_padding(int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
      tokens.push_back(0);
      positions.push_back(0);
      for (Group& group : groups) group.slots.push_back(-1);
    }
    close(0, std::vector<Table>(groups.size()));
  }
  void want_all() {
    wanted.resize(tokens.size());
    std::iota(wanted.begin(), wanted.end(), 0);
  }
  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
  // Valid as long as this lives and is not changed.
  Batch batch() const {
    slots_.clear();
    blocks_.clear();
    size_t width = 0;
    for (const Group& group : groups) {
      for (const Table& table : group.tables) width = std::max(width, table.size());
    }
    for (const Group& group : groups) {
      slots_.insert(slots_.end(), group.slots.begin(), group.slots.end());
      for (const Table& table : group.tables) {
        blocks_.insert(blocks_.end(), table.begin(), table.end());
        blocks_.resize(blocks_.size() + width - table.size(), -1);
      }
    }
    return {tokens,  positions, slots_, query_start,
            kv_len,  blocks_,   wanted, static_cast<int32_t>(width),
            rope_len};
  }

  struct Group {
    std::vector<int32_t> slots;  // [T]
    std::vector<Table> tables;   // [S]
  };
  std::vector<int32_t> tokens, positions, query_start = {0}, kv_len, wanted;
  std::vector<int32_t> rope_len;  // empty, or filled by the test
  std::vector<Group> groups;

 private:
  void close(int32_t length, std::vector<Table> tables) {
    query_start.push_back(size());
    kv_len.push_back(length);
    for (size_t g = 0; g < groups.size(); ++g) groups[g].tables.push_back(std::move(tables[g]));
  }

  mutable std::vector<int32_t> slots_, blocks_;
};

class Rig {
 public:
  explicit Rig(int threads = 2) : backend({.threads = threads}) {}

  // Stores `values` as `type`, given in `given` (what the file has).
  Pair pack(Matrix values, DType type, const std::vector<float>& bias = {},
            DType given = DType::kF32, const char* name = "w") {
    Pair pair{{}, std::move(values), bias};
    const bool vector = pair.values.rows == 1;
    const auto round_all = [&](std::vector<float>& all) {
      for (float& v : all) v = rounded(rounded(v, given), vector ? DType::kF32 : type);
    };
    const auto bytes = bytes_of(pair.values.values, given);
    const auto bias_bytes = bytes_of(bias, given);
    const RawTensor raw{name, given, {pair.values.rows, pair.values.cols}, bytes};
    const RawTensor raw_bias{"b", given, {1, pair.values.rows}, bias_bytes};
    pair.weight = backend.pack(
        {&raw, 1}, type, bias.empty() ? std::span<const RawTensor>() : std::span(&raw_bias, 1));
    round_all(pair.values.values);
    round_all(pair.bias);
    return pair;
  }

  const Weight& identity(int n) {
    identity_ = pack(identity_matrix(n), DType::kF32).weight;
    return identity_;
  }

  // A group's worth of `blocks` for each kv group.
  void create_kv(const KvSpec& spec, int32_t blocks) {
    kv_groups_ = spec.groups.size();
    backend.create_kv(spec, std::vector<int32_t>(kv_groups_, blocks));
  }

  // Scratch for f on up to `rows` rows, all of them wanted.
  void prepare(const Forward& f, int32_t rows) {
    Rows largest(kv_groups_);
    largest.add_padding(rows);
    largest.rope_len.assign(largest.tokens.size(), 1);
    largest.want_all();
    backend.prepare(f, largest.batch());
  }

  // The most likely token of each wanted row; -1 for one that is not finite.
  std::vector<int32_t> tokens(const Forward& f, const Rows& rows) {
    const std::vector<Sampling> sampling(rows.wanted.size(), {.temperature = 0});
    backend.submit(f, rows.batch(), sampling);
    std::vector<int32_t> tokens;
    for (const Sampled& result : backend.collect()) tokens.push_back(result.token);
    return tokens;
  }

  // The raw rows that a step gives.
  Matrix run(const Forward& f, const Rows& rows) {
    const std::vector<Sampling> sampling(rows.wanted.size(),
                                         {.temperature = 0, .keep_logits = true});
    backend.submit(f, rows.batch(), sampling);
    const auto results = backend.collect();
    Matrix out;
    out.rows = static_cast<int>(results.size());
    for (const Sampled& result : results) {
      out.cols = static_cast<int>(result.logits.size());
      out.values.insert(out.values.end(), result.logits.begin(), result.logits.end());
    }
    return out;
  }

  Backend backend;

 private:
  Weight identity_;
  size_t kv_groups_ = 0;
};

// Rows of random inputs for an op: token i of a table whose row i is what the oracle takes.
struct Input {
  Input(Rig& rig, int rows, int cols, uint32_t seed, DType type = DType::kF32)
      : table(rig.pack(random_matrix(std::max(rows, 2), cols, seed), type)), count(rows) {
    x = Matrix(rows, cols);
    std::copy_n(table.values.values.begin(), x.values.size(), x.values.begin());
  }
  Rows rows() const {
    Rows all(0);  // no kv
    all.add_padding(count);
    std::iota(all.tokens.begin(), all.tokens.end(), 0);
    all.want_all();
    return all;
  }
  Pair table;
  int count;
  Matrix x;
};

inline Matrix run(Rig& rig, const Input& input, const Forward& f) {
  rig.prepare(f, input.count);
  return rig.run(f, input.rows());
}

// What the linked backend's products with weights of `type` round activations to.
inline DType input_type(DType type) {
  if (is_quantised(type)) return kBackendInfo.beside_quantised;
  return type == DType::kBF16  ? kBackendInfo.beside_bf16
         : type == DType::kF16 ? kBackendInfo.beside_f16
                               : DType::kF32;
}

// x as those products take it.
inline Matrix product_input(const Matrix& x, DType type) {
  const DType as = input_type(type);
  if (as == DType::kQ8_0) return ref::rounded_to_int8(x);
  Matrix out = x;
  for (float& v : out.values) v = rounded(v, as);
  return out;
}

// The largest relative error of a float that is rounded to a type, as it is between two products:
// it may be rounded the other way than the oracle's, which differs in its last bits.
inline double unit_roundoff(DType type) {
  return type == DType::kBF16 ? std::ldexp(1, -8) : type == DType::kF16 ? std::ldexp(1, -11) : 0;
}

// The same of queries, weights and cached values in attention: a backend that rounds beside 16-bit
// weights attends in 16 bits too, in bf16 to a cache of that type and in f16 to other small ones.
inline double attention_roundoff(DType kv) {
  if (kBackendInfo.beside_bf16 == DType::kF32 || kv == DType::kF32) return 0;
  return unit_roundoff(kv == DType::kBF16 ? kv : DType::kF16);
}

inline double norm_of(const float* values, int count) {
  double squares = 0;
  for (int i = 0; i < count; ++i) squares += double{values[i]} * double{values[i]};
  return std::sqrt(squares);
}

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

// How far an f32 dot product of length n may be from the exact one. Each of the n products and sums
// adds a rounding error of at most epsilon / 2 times a partial sum; Cauchy-Schwarz bounds those by
// the norms' product, and as the errors' signs vary, they grow like the root of n. The constants
// leave room for any order of summation and for a few more operations on the result.
inline double dot_tolerance(double norm_a, double norm_b, int n) {
  return kEpsilon * (8 + 2 * std::sqrt(static_cast<double>(n))) * norm_a * norm_b;
}

// tolerance(row, column) gives each element's own bound.
template <class Tolerance>
void expect_close(const Matrix& got, const Matrix& want, Tolerance tolerance) {
  ASSERT_EQ(got.rows, want.rows);
  ASSERT_EQ(got.cols, want.cols);
  for (int r = 0; r < want.rows; ++r) {
    for (int c = 0; c < want.cols; ++c) {
      const double bound = tolerance(r, c);
      ASSERT_LE(std::abs(double{got.at(r, c)} - double{want.at(r, c)}), bound)
          << "row " << r << ", column " << c << ": got " << got.at(r, c) << ", want "
          << want.at(r, c);
    }
  }
}

inline double row_norm(const Matrix& m, int row) {
  return norm_of(&m.values[static_cast<size_t>(row) * static_cast<size_t>(m.cols)], m.cols);
}

}  // namespace llorch
