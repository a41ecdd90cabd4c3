// What attention must come to, and how far from that a device may be. See oracle.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/dtype.h"
#include "ops/oracle.h"

namespace llorch {
namespace {

using ref::Matrix;
using Row = std::span<const float>;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

Row head_of(Row row, int head, int dims) {
  return row.subspan(static_cast<size_t>(head * dims), static_cast<size_t>(dims));
}

Row row_of(const Matrix& m, int row) {
  return {m.values.data() + static_cast<size_t>(row) * static_cast<size_t>(m.cols),
          static_cast<size_t>(m.cols)};
}

double largest(Row values) {
  double most = 0;
  for (const float v : values) most = std::max(most, std::abs(double{v}));
  return most;
}

// How far the stored elements of a key may be from those of the oracle, where the last bits of its
// elements, after norm and rope, decide how they are rounded.
std::vector<float> key_slack(Row key, DType type) {
  const auto n = static_cast<int>(key.size());
  const auto error = static_cast<float>(sum_error(n, largest(key)));
  const auto stored = [&](float off) {
    std::vector<float> head(key.begin(), key.end());
    for (float& v : head) v += off;
    round_row(head, type);
    return head;
  };
  const auto middle = stored(0), above = stored(error), below = stored(-error);
  std::vector<float> slack(key.size());
  for (size_t d = 0; d < slack.size(); ++d) {
    slack[d] = std::max(std::abs(above[d] - middle[d]), std::abs(below[d] - middle[d]));
  }
  return slack;
}

struct Score {
  Row q, key, slack;
  bool rounds = false;  // q and the key to bf16, as well: 2^-9 each
};

// How far it may be from the oracle's, before it is scaled.
double score_error(const Score& s) {
  double products = 0, q_norm = 0, k_norm = 0, moved = 0;
  for (size_t d = 0; d < s.q.size(); ++d) {
    const double q = double{s.q[d]}, k = double{s.key[d]};
    products += q * k * q * k;
    q_norm += q * q;
    k_norm += k * k;
    moved += std::abs(q) * double{s.slack[d]};
  }
  products = std::sqrt(products);
  const auto n = static_cast<int>(s.q.size());
  // Norm and rope err by a few epsilon each, which reaches the score like a longer sum.
  const double size = products + std::sqrt(q_norm * k_norm / n);
  return 3 * sum_error(n, size) + moved + (s.rounds ? 4 * 0x1p-8 * products : 0);
}

}  // namespace

Expected Oracle::attention(const Matrix& qkv, const Attention& a, std::span<const int32_t> rope_len,
                           DType kv_type) const {
  std::vector<float> vectors[4];
  const auto spec = [&](const Norm* n, int index) -> ref::NormSpec {
    if (n == nullptr) return {};
    vectors[index] = vector(*n->gain);
    if (n->bias) vectors[index + 1] = vector(*n->bias);
    return {n->kind, n->eps, vectors[index], vectors[index + 1]};
  };
  const ref::AttentionSpec attention{.heads = a.heads,
                                     .kv_heads = a.kv_heads,
                                     .head_dim = a.head_dim,
                                     .window = a.window,
                                     .scale = a.scale,
                                     .softcap = a.softcap,
                                     .rope = a.rope,
                                     .q_norm = spec(a.q_norm, 0),
                                     .k_norm = spec(a.k_norm, 2)};
  std::vector<int32_t> positions(static_cast<size_t>(qkv.rows));
  std::iota(positions.begin(), positions.end(), 0);
  ref::KvCache cache{kv_type, {}, {}}, exact{DType::kF32, {}, {}};
  Expected out{ref::attention(qkv, positions, attention, &cache, rope_len), {}};
  ref::attention(qkv, positions, attention, &exact, rope_len);
  out.allowed = Matrix(out.values.rows, out.values.cols);
  const bool rounds = kv_type != DType::kF32 && device_.beside_bf16 != DType::kF32;
  for (int h = 0; h < a.heads; ++h) {
    const int kv_head = h / (a.heads / a.kv_heads);
    std::vector<Row> keys, values;
    std::vector<std::vector<float>> slack;
    for (size_t j = 0; j < positions.size(); ++j) {
      keys.push_back(head_of(cache.keys[j], kv_head, a.head_dim));
      values.push_back(head_of(cache.values[j], kv_head, a.head_dim));
      slack.push_back(key_slack(head_of(exact.keys[j], kv_head, a.head_dim), kv_type));
    }
    for (int r = 0; r < qkv.rows; ++r) {
      Matrix q(1, a.head_dim);
      std::ranges::copy(head_of(row_of(qkv, r), h, a.head_dim), q.values.begin());
      if (a.q_norm) q = ref::norm(q, attention.q_norm);
      if (a.rope) ref::rope(q.values, *a.rope, r, rope_len[static_cast<size_t>(r)]);
      const auto first = static_cast<size_t>(a.window > 0 ? std::max(0, r - a.window + 1) : 0),
                 end = static_cast<size_t>(r) + 1;
      double error = 8 * kEpsilon * double{a.softcap};
      for (size_t j = first; j < end; ++j) {
        const double score = score_error({q.values, keys[j], slack[j], rounds});
        error = std::max(error, double{a.scale} * score + 8 * kEpsilon * double{a.softcap});
      }
      // A score's error e changes its weight by the factor exp(e), and the weights' sum too. Where
      // scores are rounded, so are the weights and the values.
      const double moved = std::expm1(2 * error) + sum_error(static_cast<int>(end - first), 1) +
                           (rounds ? 0x1p-7 : 0);
      for (int d = 0; d < a.head_dim; ++d) {
        float most = 0;
        for (size_t j = first; j < end; ++j) {
          most = std::max(most, std::abs(values[j][static_cast<size_t>(d)]));
        }
        out.allowed.at(r, h * a.head_dim + d) =
            static_cast<float>(std::min(2.0, moved) * double{most});
      }
    }
  }
  return out;
}

}  // namespace llorch
