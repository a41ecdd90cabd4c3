// Sequences that grow step by step on shuffled blocks, on the device and in the oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <ostream>
#include <random>
#include <utility>
#include <vector>

#include "backends/cuda/kernels.h"
#include "backends/cuda/test_arrays.h"
#include "gtest/gtest.h"
#include "ops/dtype.h"
#include "ops/ref_ops.h"
#include "ops/test_numbers.h"

namespace llorch::cuda {

using ref::Matrix;

constexpr DType kKvTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kF8E4M3};
constexpr double kBf16Step = 1.0 / 512,
                 kF16Step = 1.0 / 4096;  // of a value that is rounded, at most

// What an attention test varies.
struct Case {
  int heads, kv_heads, head_dim, block_tokens;
  DType type;
  int rope_dims = 0;
  bool interleaved = false;
  int window = 0;
  float softcap = 0;
  bool norms = false, layer_norms = false;
  int trained = 0;  // longrope beyond so many tokens, or dynamic NTK with ntk_factor
  double ntk_factor = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.heads << "/" << c.kv_heads << " heads of " << c.head_dim << ", blocks of "
             << c.block_tokens << ", " << name(c.type) << ", rope " << c.rope_dims
             << (c.interleaved ? " interleaved" : "") << ", window " << c.window << ", cap "
             << c.softcap << (c.norms ? ", norms" : "") << ", trained for " << c.trained << ", ntk "
             << c.ntk_factor;
}

inline double norm_of(const float* values, int count) {
  double squares = 0;
  for (int i = 0; i < count; ++i) squares += double{values[i]} * double{values[i]};
  return std::sqrt(squares);
}

// As tests/conformance/rig.h has it.
inline double dot_tolerance(double norm_a, double norm_b, int n) {
  return kTestEpsilon * (8 + 2 * std::sqrt(static_cast<double>(n))) * norm_a * norm_b;
}

// Rows of a sequence from a position on.
struct Part {
  int sequence, position;
  Matrix qkv;
  bool padding = false;
};

// How a step is started: what it has room for, and whether rows may be split.
struct Room {
  int rows = 0, sequences = 0, longest = 0, most_queries = 0;  // more than there are
  bool split = true;
};

class AttentionRig {
 public:
  AttentionRig(const Case& c, int sequences, int length, uint32_t seed = 99)
      : case_(c),
        numbers_(seed),
        width_((length + c.block_tokens - 1) / c.block_tokens),
        blocks_(sequences * width_ + 3),
        kv_(gpu_, static_cast<size_t>(block_bytes(c) * blocks_)),
        gains_(gpu_, gains(c)),
        frequencies_(gpu_, 2 * static_cast<size_t>(c.rope_dims / 2) + 1) {
    make_rope();
    spec_.heads = c.heads;
    spec_.kv_heads = c.kv_heads;
    spec_.head_dim = c.head_dim;
    spec_.window = c.window;
    spec_.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    spec_.softcap = c.softcap;
    spec_.rope = c.rope_dims > 0 ? &rope_ : nullptr;
    if (c.norms) {
      const auto n = static_cast<size_t>(c.head_dim);
      const auto vector = [&](size_t i) { return std::span(gain_values_).subspan(i * n, n); };
      const NormKind kind = c.layer_norms ? NormKind::kLayer : NormKind::kRms;
      spec_.q_norm = {.kind = kind, .eps = 1e-6f, .gain = vector(0)};
      spec_.k_norm = {.kind = kind, .eps = 1e-6f, .gain = vector(1)};
      if (c.layer_norms) spec_.q_norm.bias = spec_.k_norm.bias = vector(2);
    }
    std::vector<int32_t> all(static_cast<size_t>(blocks_));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), std::mt19937(seed));
    for (int s = 0; s < sequences; ++s) {
      tables_.emplace_back(all.begin() + s * width_, all.begin() + (s + 1) * width_);
      caches_.push_back({c.type, {}, {}});
    }
  }

  const Case& facts() const { return case_; }
  const ref::KvCache& cache(int sequence) const { return caches_[static_cast<size_t>(sequence)]; }
  std::vector<int32_t>& table(int sequence) { return tables_[static_cast<size_t>(sequence)]; }
  // From now on; a step of many rows that is to fill the cache alone takes a small one.
  void set_window(int window) { case_.window = spec_.window = window; }
  int cols() const { return (case_.heads + 2 * case_.kv_heads) * case_.head_dim; }

  // Random rows; what bf16 holds exactly, if so wanted.
  Matrix random_rows(int count, bool exact = false) {
    Matrix m(count, cols());
    m.values = numbers_.floats(m.values.size());
    if (exact) round_row(m.values, DType::kBF16);
    return m;
  }

  // One step on the device, [rows, heads head_dim] of all parts in order.
  Matrix run(const std::vector<Part>& parts, const Room& room = {}) {
    Arrays a = arrays_of(parts, room);
    const auto rows = static_cast<int32_t>(a.positions.size());
    TestArray<float> qkv(gpu_, a.qkv);
    TestArray<int32_t> positions(gpu_, a.positions), slots(gpu_, a.slots), start(gpu_, a.start),
        table(gpu_, a.table), lengths(gpu_, a.lengths), owner(gpu_, a.owner);
    AttentionArgs args = arguments();
    args.qkv = qkv.data();
    args.step = {.positions = positions.data(),
                 .query_start = start.data(),
                 .slots = slots.data(),
                 .blocks = table.data(),
                 .rope_len = lengths.data(),
                 .row_sequence = owner.data(),
                 .rows = rows,
                 .sequences = static_cast<int32_t>(a.start.size()) - 1,
                 .blocks_per_sequence = width_,
                 .longest = std::max(room.longest, a.longest),
                 .most_queries = std::max(room.most_queries, a.most_queries)};
    TestRows out(gpu_, rows, case_.heads * case_.head_dim);
    args.out = out.view;
    args.scratch_bytes =
        room.split ? attention_scratch_bytes(args) : least_attention_scratch_bytes(args);
    TestArray<std::byte> scratch(gpu_, args.scratch_bytes);
    args.scratch = scratch.data();
    TestArray<float> angles(gpu_, static_cast<size_t>(rows * case_.rope_dims));
    if (case_.rope_dims > 0) {
      rope_table(gpu_, rope_args(args.step, angles.data()));
      args.rope_table = angles.data();
    }
    attention(gpu_, args);
    Matrix result(rows, case_.heads * case_.head_dim);
    result.values = out.values.get();
    check_rounded(result, out.rounded.get());
    return result;
  }

  // The same in the oracle, whose caches grow by it; padding gives zeros.
  Matrix want(const std::vector<Part>& parts) {
    Matrix all(0, case_.heads * case_.head_dim);
    for (const Part& part : parts) {
      Matrix one(part.qkv.rows, all.cols);
      if (!part.padding) {
        std::vector<int32_t> positions, lengths;
        for (int i = 0; i < part.qkv.rows; ++i) {
          positions.push_back(part.position + i);
          lengths.push_back(part.position + i + 1);
        }
        one = ref::attention(part.qkv, positions, spec_,
                             &caches_[static_cast<size_t>(part.sequence)], lengths);
      }
      all.rows += one.rows;
      all.values.insert(all.values.end(), one.values.begin(), one.values.end());
    }
    return all;
  }

  // How far a row may be from the oracle's. A score's error e changes a weight by the factor
  // exp(e) and the weights' sum as well, so the result by at most 2 e times the largest value. By
  // tensor cores q (unless `exact`) and weights are rounded to the tile's type, and so are keys and
  // values of 8 bits.
  double bound(const Matrix& qkv, int row, int sequence, bool exact) const {
    const int n = case_.head_dim;
    const ref::KvCache& cache = caches_[static_cast<size_t>(sequence)];
    double q = 0, k = 0, v = 0, largest_k = 0;
    for (int h = 0; h < case_.heads; ++h) {
      const double norm = norm_of(&qkv.values[static_cast<size_t>(row * qkv.cols + h * n)], n);
      q = std::max(q, (case_.norms ? 2 * std::sqrt(double(n)) : norm) * double{rope_.factor});
    }
    for (size_t j = 0; j < cache.keys.size(); ++j) {
      for (int h = 0; h < case_.kv_heads; ++h) {
        k = std::max(k, norm_of(&cache.keys[j][static_cast<size_t>(h * n)], n));
      }
      for (const float x : cache.keys[j]) largest_k = std::max(largest_k, std::abs(double{x}));
      for (const float x : cache.values[j]) v = std::max(v, std::abs(double{x}));
    }
    const bool f32 = case_.type == DType::kF32, as_given = !case_.norms && case_.rope_dims == 0;
    const double tokens = double(cache.keys.size());
    const double step = case_.type == DType::kBF16 ? kBf16Step : kF16Step;
    const double codes = is_quantised(case_.type) ? step : 0;
    // A key that is off by an f32 rounding may be stored as its neighbour.
    const double neighbour = f32 || as_given              ? 0
                             : case_.type == DType::kF16  ? std::ldexp(1, -10)
                             : case_.type == DType::kBF16 ? std::ldexp(1, -7)
                             : case_.type == DType::kQ8_0 ? 1.0 / 127
                                                          : std::ldexp(1, -3);
    const double rounding = f32 ? 0 : (exact ? 0 : step) + codes;
    const double score = double{spec_.scale} * (3 * dot_tolerance(q, k, n) + rounding * q * k +
                                                2 * neighbour * q * largest_k) +
                         8 * kTestEpsilon * double{spec_.softcap};
    const double weights = f32 ? 0 : 2 * step + codes;
    return v * (2 * score + weights + 2 * dot_tolerance(1, 1, int(tokens)));
  }

 private:
  struct Arrays {
    std::vector<float> qkv;
    std::vector<int32_t> positions, slots, start = {0}, table, lengths, owner;
    int longest = 1, most_queries = 1;
  };

  static KvSpec kv_spec(const Case& c) {
    return {.groups = {{.layers = 1, .window = c.window}},
            .kv_heads = c.kv_heads,
            .head_dim = c.head_dim,
            .block_tokens = c.block_tokens,
            .type = c.type};
  }
  static int64_t block_bytes(const Case& c) { return kv_block_bytes(kv_spec(c)); }

  std::vector<float> gains(const Case& c) {
    gain_values_ = TestNumbers(7).floats(static_cast<size_t>(3 * c.head_dim));
    return gain_values_;
  }

  void make_rope() {
    const Case& c = case_;
    rope_.dims = c.rope_dims;
    rope_.interleaved = c.interleaved;
    rope_.factor = c.interleaved ? 1.2f : 1.0f;
    for (int i = 0; i < c.rope_dims / 2; ++i) {
      rope_.inv_freq.push_back(
          static_cast<float>(std::pow(500.0, -2.0 * i / static_cast<double>(c.rope_dims))));
      if (c.trained > 0) rope_.long_inv_freq.push_back(rope_.inv_freq.back() / (1.5f + float(i)));
    }
    rope_.trained = c.trained;
    rope_.theta = 500;
    rope_.ntk_factor = c.ntk_factor;
    std::vector<float> both = rope_.inv_freq;
    both.insert(both.end(), rope_.long_inv_freq.begin(), rope_.long_inv_freq.end());
    frequencies_.set(both);
  }

  RopeTableArgs rope_args(const StepArrays& step, float* table) const {
    return {.inv_freq = frequencies_.data(),
            .long_inv_freq = frequencies_.data() + case_.rope_dims / 2,
            .dims = rope_.dims,
            .trained = rope_.trained,
            .factor = rope_.factor,
            .theta = rope_.theta,
            .ntk_factor = rope_.ntk_factor,
            .step = &step,
            .table = table};
  }

  AttentionArgs arguments() const {
    AttentionArgs args{.heads = case_.heads,
                       .kv_heads = case_.kv_heads,
                       .head_dim = case_.head_dim,
                       .window = case_.window,
                       .scale = spec_.scale,
                       .softcap = case_.softcap,
                       .rope_dims = case_.rope_dims,
                       .rope_interleaved = case_.interleaved};
    if (case_.norms) {
      const float* const bias = case_.layer_norms ? gains_.data() + 2 * case_.head_dim : nullptr;
      args.q_norm = {gains_.data(), bias, 1e-6f, case_.layer_norms};
      args.k_norm = {gains_.data() + case_.head_dim, bias, 1e-6f, case_.layer_norms};
    }
    args.kv = {kv_.data(), block_bytes(case_), case_.block_tokens, case_.type};
    return args;
  }

  Arrays arrays_of(const std::vector<Part>& parts, const Room& room) const {
    Arrays a;
    const auto per = case_.block_tokens;
    const auto add = [&](const Part& part) {
      const auto& table = tables_[static_cast<size_t>(part.sequence)];
      const auto sequence = static_cast<int32_t>(a.start.size()) - 1;
      for (int i = 0; i < part.qkv.rows; ++i) {
        const int position = part.position + i;
        const int block = part.padding ? 0 : table[static_cast<size_t>(position / per)];
        a.positions.push_back(position);
        a.slots.push_back(part.padding ? -1 : block * per + position % per);
        a.lengths.push_back(position + 1);
        a.owner.push_back(sequence);
        a.longest = std::max(a.longest, part.padding ? 0 : position + 1);
      }
      a.qkv.insert(a.qkv.end(), part.qkv.values.begin(), part.qkv.values.end());
      a.table.insert(a.table.end(), table.begin(), table.end());
      a.start.push_back(static_cast<int32_t>(a.positions.size()));
      a.most_queries = std::max(a.most_queries, part.qkv.rows);
    };
    for (const Part& part : parts) add(part);
    const int rows = static_cast<int>(a.positions.size());
    if (room.rows > rows) add({0, 0, Matrix(room.rows - rows, cols()), true});
    while (static_cast<int>(a.start.size()) - 1 < room.sequences) {
      add({0, 0, Matrix(0, cols()), true});
    }
    return a;
  }

  static void check_rounded(const Matrix& values, const std::vector<uint16_t>& rounded) {
    const int pitch = padded_columns(values.cols);
    for (int r = 0; r < values.rows; ++r) {
      for (int c = 0; c < pitch; ++c) {
        const uint16_t want = c < values.cols ? bf16_from_f32(values.at(r, c)) : uint16_t{0};
        ASSERT_EQ(rounded[static_cast<size_t>(r * pitch + c)], want) << r << ", " << c;
      }
    }
  }

  Case case_;
  Gpu gpu_{0};
  TestNumbers numbers_;
  const int width_, blocks_;
  TestArray<std::byte> kv_;
  std::vector<float> gain_values_;
  TestArray<float> gains_, frequencies_;
  Rope rope_;
  ref::AttentionSpec spec_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<ref::KvCache> caches_;
};

}  // namespace llorch::cuda
