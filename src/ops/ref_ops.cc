// The scalar oracle of every op. Knows no device.
#include "ops/ref_ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "ops/dtype.h"
#include "ops/rope_frequencies.h"

namespace llorch::ref {
namespace {

double soft_capped(double x, float cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; }

// RMSNorm of Zhang and Sennrich (2019), LayerNorm of Ba et al. (2016).
void norm_in_place(std::span<float> x, const NormSpec& spec) {
  const auto n = static_cast<double>(x.size());
  double mean = 0, squares = 0;
  if (spec.kind == NormKind::kLayer) {
    for (const float v : x) mean += double{v} / n;
  }
  for (const float v : x) squares += (double{v} - mean) * (double{v} - mean);
  const double factor = 1 / std::sqrt(squares / n + double{spec.eps});
  for (size_t i = 0; i < x.size(); ++i) {
    const double bias = spec.bias.empty() ? 0 : double{spec.bias[i]};
    x[i] = static_cast<float>((double{x[i]} - mean) * factor * double{spec.gain[i]} + bias);
  }
}

std::span<const float> row_of(const Matrix& m, int row) {
  return std::span(m.values).subspan(static_cast<size_t>(row) * static_cast<size_t>(m.cols),
                                     static_cast<size_t>(m.cols));
}

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

std::vector<float> head_of(std::span<const float> row, int head, int head_dim) {
  const auto part =
      row.subspan(static_cast<size_t>(head * head_dim), static_cast<size_t>(head_dim));
  return {part.begin(), part.end()};
}

void write_kv(std::span<const float> qkv, int32_t position, int32_t rope_len,
              const AttentionSpec& a, KvCache* cache) {
  const auto index = static_cast<size_t>(position);
  if (cache->keys.size() <= index) {
    cache->keys.resize(index + 1);
    cache->values.resize(index + 1);
  }
  std::vector<float> keys, values;
  for (int h = 0; h < a.kv_heads; ++h) {
    auto key = head_of(qkv, a.heads + h, a.head_dim);
    if (!a.k_norm.gain.empty()) norm_in_place(key, a.k_norm);
    if (a.rope) rope(key, *a.rope, position, rope_len);
    auto value = head_of(qkv, a.heads + a.kv_heads + h, a.head_dim);
    round_row(key, cache->type);
    round_row(value, cache->type);
    keys.insert(keys.end(), key.begin(), key.end());
    values.insert(values.end(), value.begin(), value.end());
  }
  cache->keys[index] = std::move(keys);
  cache->values[index] = std::move(values);
}

void attend(std::span<const float> query, int32_t position, int kv_head, const AttentionSpec& a,
            const KvCache& cache, float* out) {
  const int first = a.window > 0 ? std::max(0, position - a.window + 1) : 0;
  const auto offset = static_cast<size_t>(kv_head * a.head_dim);
  const auto dims = static_cast<size_t>(a.head_dim);
  std::vector<double> scores;
  for (int j = first; j <= position; ++j) {
    const auto key = std::span(cache.keys[static_cast<size_t>(j)]).subspan(offset, dims);
    scores.push_back(soft_capped(dot(query, key) * double{a.scale}, a.softcap));
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& s : scores) total += s = std::exp(s - top);
  for (size_t d = 0; d < dims; ++d) {
    double sum = 0;
    for (size_t j = 0; j < scores.size(); ++j) {
      sum += scores[j] * double{cache.values[static_cast<size_t>(first) + j][offset + d]};
    }
    out[d] = static_cast<float>(sum / total);
  }
}

}  // namespace

std::vector<double> expert_weights(std::span<const float> scores, int top_k, bool renormalize) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  const double top = double{scores[order[0]]};
  std::vector<double> weights(scores.size());
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const double weight = std::exp(double{scores[order[i]]} - top);
    const bool chosen = i < static_cast<size_t>(top_k);
    if (chosen) weights[order[i]] = weight;
    if (chosen || !renormalize) total += weight;
  }
  for (double& weight : weights) weight /= total;
  return weights;
}

double activate(double x, Act act) {
  if (act == Act::kSilu) return x / (1 + std::exp(-x));
  if (act == Act::kGelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  constexpr double kRoot = 0.79788456080286535588;  // sqrt(2 / pi)
  return 0.5 * x * (1 + std::tanh(kRoot * (x + 0.044715 * x * x * x)));
}

Matrix embed(const Matrix& table, std::span<const int32_t> tokens, float scale) {
  Matrix out(static_cast<int>(tokens.size()), table.cols);
  for (int r = 0; r < out.rows; ++r) {
    for (int c = 0; c < out.cols; ++c) {
      out.at(r, c) = table.at(tokens[static_cast<size_t>(r)], c) * scale;
    }
  }
  return out;
}

Matrix norm(const Matrix& x, const NormSpec& spec) {
  Matrix out = x;
  for (int r = 0; r < x.rows; ++r) {
    norm_in_place(std::span(out.values)
                      .subspan(static_cast<size_t>(r) * static_cast<size_t>(x.cols),
                               static_cast<size_t>(x.cols)),
                  spec);
  }
  return out;
}

Matrix add(const Matrix& a, const Matrix& b) {
  CHECK(a.rows == b.rows && a.cols == b.cols);
  Matrix out = a;
  for (size_t i = 0; i < out.values.size(); ++i) out.values[i] += b.values[i];
  return out;
}

Matrix linear(const Matrix& x, const Matrix& weight, std::span<const float> bias) {
  CHECK(x.cols == weight.cols);
  Matrix out(x.rows, weight.rows);
  for (int r = 0; r < out.rows; ++r) {
    for (int c = 0; c < out.cols; ++c) {
      const double sum = dot(row_of(x, r), row_of(weight, c));
      out.at(r, c) =
          static_cast<float>(bias.empty() ? sum : sum + double{bias[static_cast<size_t>(c)]});
    }
  }
  return out;
}

Matrix rounded_to_int8(const Matrix& x) {
  constexpr int kBlock = 32;
  CHECK(x.cols % kBlock == 0);
  Matrix out = x;
  for (size_t first = 0; first < out.values.size(); first += kBlock) {
    const std::span block(out.values.data() + first, kBlock);
    float top = 0;
    for (const float v : block) top = std::max(top, std::abs(v));
    const float factor = top < 1e-30f ? 0 : 127 / top;
    for (float& v : block) v = std::nearbyint(v * factor) * (top / 127);
  }
  return out;
}

Matrix mlp(const Matrix& x, const Matrix& gate_up, const Matrix& down, Act act) {
  const Matrix both = linear(x, gate_up);
  Matrix hidden(x.rows, down.cols);
  for (int r = 0; r < hidden.rows; ++r) {
    for (int c = 0; c < hidden.cols; ++c) {
      hidden.at(r, c) = static_cast<float>(activate(double{both.at(r, c)}, act) *
                                           double{both.at(r, c + hidden.cols)});
    }
  }
  return linear(hidden, down);
}

Matrix plain_mlp(const Matrix& x, const Matrix& up, std::span<const float> up_bias,
                 const Matrix& down, std::span<const float> down_bias, Act act) {
  Matrix hidden = linear(x, up, up_bias);
  for (float& v : hidden.values) v = static_cast<float>(activate(double{v}, act));
  return linear(hidden, down, down_bias);
}

// As MixtralSparseMoeBlock and Qwen2MoeSparseMoeBlock of transformers do it.
Matrix moe(const Matrix& x, const MoeSpec& spec) {
  const Matrix scores = linear(x, spec.router);
  Matrix out(x.rows, x.cols);
  for (int r = 0; r < x.rows; ++r) {
    const std::vector<double> weights =
        expert_weights(row_of(scores, r), spec.top_k, spec.renormalize);
    Matrix row(1, x.cols);
    std::ranges::copy(row_of(x, r), row.values.begin());
    std::vector<double> sum(row.values.size());
    const auto add = [&](const ExpertSpec& expert, double weight) {
      const Matrix part = mlp(row, expert.gate_up, expert.down, spec.act);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * double{part.values[i]};
    };
    for (size_t e = 0; e < weights.size(); ++e) {
      if (weights[e] > 0) add(spec.experts[e], weights[e]);
    }
    if (spec.shared) {
      const bool gated = !spec.shared_gate.empty();
      add(*spec.shared, gated ? 1 / (1 + std::exp(-dot(row.values, spec.shared_gate))) : 1);
    }
    for (int c = 0; c < x.cols; ++c) out.at(r, c) = static_cast<float>(sum[static_cast<size_t>(c)]);
  }
  return out;
}

void rope(std::span<float> head, const Rope& rope, int32_t position, int32_t rope_len) {
  std::vector<float> scratch(rope.inv_freq.size());
  const auto frequencies = rope_frequencies(rope, rope_len, scratch);
  for (int i = 0; i < rope.dims / 2; ++i) {
    // The angle is a float, as in transformers; its cosine and sine need not be.
    const float angle = static_cast<float>(position) * frequencies[static_cast<size_t>(i)];
    const double cosine = std::cos(double{angle}) * double{rope.factor};
    const double sine = std::sin(double{angle}) * double{rope.factor};
    float& x = head[static_cast<size_t>(rope.interleaved ? 2 * i : i)];
    float& y = head[static_cast<size_t>(rope.interleaved ? 2 * i + 1 : i + rope.dims / 2)];
    const double a = double{x}, b = double{y};
    x = static_cast<float>(a * cosine - b * sine);
    y = static_cast<float>(b * cosine + a * sine);
  }
}

Matrix attention(const Matrix& qkv, std::span<const int32_t> positions, const AttentionSpec& spec,
                 KvCache* cache, std::span<const int32_t> rope_len) {
  const auto length = [&](int row) {
    return rope_len.empty() ? 0 : rope_len[static_cast<size_t>(row)];
  };
  CHECK(qkv.cols == (spec.heads + 2 * spec.kv_heads) * spec.head_dim);
  for (int r = 0; r < qkv.rows; ++r) {
    write_kv(row_of(qkv, r), positions[static_cast<size_t>(r)], length(r), spec, cache);
  }
  Matrix out(qkv.rows, spec.heads * spec.head_dim);
  for (int r = 0; r < qkv.rows; ++r) {
    for (int h = 0; h < spec.heads; ++h) {
      const int32_t position = positions[static_cast<size_t>(r)];
      auto query = head_of(row_of(qkv, r), h, spec.head_dim);
      if (!spec.q_norm.gain.empty()) norm_in_place(query, spec.q_norm);
      if (spec.rope) rope(query, *spec.rope, position, length(r));
      attend(query, position, h / (spec.heads / spec.kv_heads), spec, *cache,
             &out.at(r, h * spec.head_dim));
    }
  }
  return out;
}

Matrix logits(const Matrix& x, std::span<const int32_t> rows, const Matrix& head, float softcap) {
  Matrix out(static_cast<int>(rows.size()), head.rows);
  for (int r = 0; r < out.rows; ++r) {
    for (int c = 0; c < out.cols; ++c) {
      const double sum = dot(row_of(x, rows[static_cast<size_t>(r)]), row_of(head, c));
      out.at(r, c) = static_cast<float>(soft_capped(sum, softcap));
    }
  }
  return out;
}

}  // namespace llorch::ref
