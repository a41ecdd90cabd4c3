#include "model/parity_ops.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <utility>

#include "base/error.h"

namespace llorch {

namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr float kNoBound = std::numeric_limits<float>::infinity();

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

// The router's logits of a row may be `error` off: whether it may choose other experts then.
bool hesitates(std::span<const float> scores, int top_k, double error) {
  std::vector<float> sorted(scores.begin(), scores.end());
  std::ranges::sort(sorted, std::greater());
  const auto k = static_cast<size_t>(top_k);
  return k < sorted.size() && double{sorted[k - 1]} - double{sorted[k]} <= 2 * error;
}

std::span<const float> row_of(const ref::Matrix& m, int row) {
  return {m.values.data() + static_cast<size_t>(row) * static_cast<size_t>(m.cols),
          static_cast<size_t>(m.cols)};
}

}  // namespace

ParityOps::ParityOps(const Oracle& oracle, Probe* probe, std::span<const int32_t> tokens,
                     DType kv_type, ParityReport* report)
    : oracle_(oracle),
      probe_(probe),
      tokens_(tokens.begin(), tokens.end()),
      rope_len_(tokens.size(), static_cast<int32_t>(tokens.size())),
      kv_type_(kv_type),
      report_(*report) {}

std::string ParityOps::name_of(const Weight& weight) {
  const WeightSource& source = oracle_.source(weight);
  layer_ = source.layer;
  return source.name;
}

std::string ParityOps::name_of(const Norm& norm) {
  return name_of(*norm.gain) + (norm.bias ? "+" + name_of(*norm.bias) : "");
}

void ParityOps::compare(const std::string& what, const Matrix& got, const Matrix& want,
                        const Matrix& allowed) {
  const std::string where = (layer_ < 0 ? "" : "layer " + std::to_string(layer_) + ": ") + what;
  ++report_.checks;
  for (int r = 0; r < want.rows; ++r) {
    for (int c = 0; c < want.cols; ++c) {
      const double from_device = double{got.at(r, c)}, from_host = double{want.at(r, c)};
      const double off = std::abs(from_device - from_host);
      constexpr double kLeast = 1e-30;  // subnormals may be nothing to a device
      const double bound = double{allowed.at(r, c)} + kLeast;
      if (!(off <= bound)) {
        throw Error(ErrorCode::kDevice,
                    "[parity] " + where + ": the device's result is " + text(off) +
                        " from the CPU's, bound " + text(bound) + " (" + text(from_device) +
                        " and " + text(from_host) + "; token " + std::to_string(r) + ", sum " +
                        std::to_string(c) + " of " + std::to_string(want.cols) + ")");
      }
      if (off / bound > report_.worst) {
        report_.worst = off / bound;
        report_.worst_at = where;
      }
    }
  }
}

void ParityOps::check(const std::string& what, const Expected& want, const Inputs& inputs,
                      const Probe::Op& op) {
  if (probe_ == nullptr) return;
  const Matrix got = probe_->sums(inputs, want.values.cols, op);
  Matrix allowed = probe_->add_up_squares(want.allowed);
  const Matrix sizes = probe_->add_up_squares(want.values);
  // The head's sums are the device's too.
  constexpr double kRoom = 2;
  const int summed = (want.values.cols - 1) / allowed.cols + 1;
  for (size_t i = 0; i < allowed.values.size(); ++i) {
    allowed.values[i] += static_cast<float>(kRoom * sum_error(summed, double{sizes.values[i]}));
  }
  compare(what, got, probe_->add_up(want.values), allowed);
}

ref::Matrix ParityOps::embed(const Weight& table, float scale) {
  Expected want = oracle_.embed(tokens_, table, scale);
  check("embed by " + name_of(table), want, {},
        [&](Ops& op, auto) { return op.embed(table, scale); });
  return std::move(want.values);
}

ref::Matrix ParityOps::norm(const Matrix& x, const Norm& n) {
  Expected want = oracle_.norm(x, n);
  check("norm by " + name_of(n), want, {&x}, [&](Ops& op, auto in) { return op.norm(in[0], n); });
  return std::move(want.values);
}

ref::Matrix ParityOps::add_norm(const Matrix& x, Matrix* sum, const Norm& n) {
  Expected total = oracle_.add(x, *sum);
  Expected want = oracle_.norm(total.values, n);
  const std::string name = "add_norm by " + name_of(n);
  check(name, want, {&x, sum}, [&](Ops& op, auto in) {
    Tensor added = in[1];
    return op.add_norm(in[0], &added, n);
  });
  check(name + ", its sum", total, {&x, sum}, [&](Ops& op, auto in) {
    Tensor added = in[1];
    op.add_norm(in[0], &added, n);
    return added;
  });
  *sum = std::move(total.values);
  return std::move(want.values);
}

void ParityOps::add(const Matrix& x, Matrix* sum) {
  Expected want = oracle_.add(x, *sum);
  check("add", want, {&x, sum}, [&](Ops& op, auto in) {
    Tensor added = in[1];
    op.add(in[0], &added);
    return added;
  });
  *sum = std::move(want.values);
}

ExpectedProduct ParityOps::product(const Expected& x, const Weight& w) {
  ExpectedProduct want = oracle_.linear(x, w);
  check("product with " + name_of(w), want, {&x.values},
        [&](Ops& op, auto in) { return op.linear(in[0], w); });
  return want;
}

ref::Matrix ParityOps::linear(const Matrix& x, const Weight& w) {
  return std::move(product({x, {}}, w).values);
}

ref::Matrix ParityOps::attention(const Matrix& qkv, const Attention& a) {
  Expected want = oracle_.attention(qkv, a, rope_len_, kv_type_);
  const std::string norms =
      a.q_norm && a.k_norm ? " with " + name_of(*a.q_norm) + "+" + name_of(*a.k_norm) : "";
  check("attention" + norms, want, {&qkv},
        [&](Ops& op, auto in) { return op.attention(in[0], a); });
  return std::move(want.values);
}

Expected ParityOps::two_products(const Matrix& x, const Weight& up, const Weight& down, Act act,
                                 bool gated) {
  return product(oracle_.activate(product({x, {}}, up), act, gated), down).whole();
}

ref::Matrix ParityOps::mlp(const Matrix& x, const Weight& gate_up, const Weight& down, Act act) {
  Expected want = two_products(x, gate_up, down, act, true);
  check("mlp", want, {&x}, [&](Ops& op, auto in) { return op.mlp(in[0], gate_up, down, act); });
  return std::move(want.values);
}

ref::Matrix ParityOps::plain_mlp(const Matrix& x, const Weight& up, const Weight& down, Act act) {
  Expected want = two_products(x, up, down, act, false);
  check("mlp", want, {&x}, [&](Ops& op, auto in) { return op.plain_mlp(in[0], up, down, act); });
  return std::move(want.values);
}

Expected ParityOps::mixture(const Matrix& x, const Moe& m) {
  Expected out{Matrix(x.rows, x.cols), Matrix(x.rows, x.cols)};
  const auto add = [&](int row, const Expected& part, double weight, double weight_error) {
    for (int c = 0; c < x.cols; ++c) {
      const double value = double{part.values.at(row, c)};
      out.values.at(row, c) += static_cast<float>(weight * value);
      out.allowed.at(row, c) += static_cast<float>(
          weight * (double{part.allowed.at(row, c)} + weight_error * std::abs(value)));
    }
  };
  const Expected scores = product({x, {}}, *m.router);
  std::vector<std::vector<double>> weights;
  std::vector<double> errors;
  for (int r = 0; r < x.rows; ++r) {
    weights.push_back(ref::expert_weights(row_of(scores.values, r), m.top_k, m.renormalize));
    errors.push_back(double{std::ranges::max(row_of(scores.allowed, r))});
  }
  // Those that no row goes to as well: each is a tensor that may be wrong.
  for (size_t e = 0; e < m.down.size(); ++e) {
    const Expected part = two_products(x, m.gate_up[e], m.down[e], m.act, true);
    for (int r = 0; r < x.rows; ++r) {
      const auto row = static_cast<size_t>(r);
      // A score's error changes a weight by the factor exp(error), and the sum of weights as well.
      add(r, part, weights[row][e], 2 * errors[row] + 16 * kEpsilon);
    }
  }
  if (m.shared_down) {
    const Expected part = two_products(x, *m.shared_gate_up, *m.shared_down, m.act, true);
    const std::vector<float> gate =
        m.shared_gate ? oracle_.vector(*m.shared_gate) : std::vector<float>();
    for (int r = 0; r < x.rows; ++r) {
      double score = 0, size = 0;
      for (size_t c = 0; c < gate.size(); ++c) {
        const double product = double{gate[c]} * double{x.at(r, static_cast<int>(c))};
        score += product;
        size += product * product;
      }
      const double error = 2 * sum_error(x.cols, std::sqrt(size) + std::abs(score));
      add(r, part, gate.empty() ? 1 : 1 / (1 + std::exp(-score)), error + 8 * kEpsilon);
    }
  }
  for (int r = 0; r < x.rows; ++r) {
    const auto row = static_cast<size_t>(r);
    if (!hesitates(row_of(scores.values, r), m.top_k, errors[row])) continue;
    for (int c = 0; c < x.cols; ++c) out.allowed.at(r, c) = kNoBound;
  }
  return out;
}

ref::Matrix ParityOps::moe(const Matrix& x, const Moe& m) {
  Expected want = mixture(x, m);
  const std::string gate = m.shared_gate ? "+" + name_of(*m.shared_gate) : "";
  check("experts by " + name_of(*m.router) + gate, want, {&x},
        [&](Ops& op, auto in) { return op.moe(in[0], m); });
  return std::move(want.values);
}

void ParityOps::check_logits(const Matrix& x, const Weight& head, float softcap) {
  if (probe_ == nullptr) return;
  constexpr int32_t kTokens = 512;
  const int32_t vocab = head.shape.rows, count = std::min(vocab, kTokens);
  std::vector<int32_t> some(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    some[static_cast<size_t>(i)] = static_cast<int32_t>(int64_t{i} * vocab / count);
  }
  const Expected want = oracle_.logits(x, head, some, softcap);
  const Matrix all =
      probe_->logits(x, [&](Ops& op, auto in) { return op.logits(in[0], head, softcap); });
  Matrix got(want.values.rows, want.values.cols);
  for (int r = 0; r < got.rows; ++r) {
    for (int c = 0; c < got.cols; ++c) got.at(r, c) = all.at(r, some[static_cast<size_t>(c)]);
  }
  const std::string name = name_of(head);
  layer_ = -1;
  compare("logits by " + name, got, want.values, want.allowed);
}

}  // namespace llorch
