// What a block does beside attention, on the linked backend against the scalar oracle: activations,
// gated and plain MLPs, mixtures of experts.
#include <tuple>

#include "rig.h"

namespace llorch {
namespace {

constexpr Act kActs[] = {Act::kSilu, Act::kGeluTanh, Act::kGelu};

const char* name_of(Act act) {
  return act == Act::kSilu ? "silu" : act == Act::kGelu ? "gelu" : "gelu_tanh";
}

struct Mlp {
  Pair up, down;  // `up` stacks the gate's rows over its own if there is a gate
  bool gated = true;
};

// How far element (r, c) of an MLP's result for `x` may be from the oracle's. An activation's slope
// is at most 1.13 and its value at most its argument's, so an error of the gate or up product
// reaches the hidden value times the other one's size. `products` are those of x and up.
double mlp_bound(const Matrix& x, const Mlp& mlp, const Matrix& products, DType type, int r,
                 int c) {
  const int ffn = mlp.down.values.cols;
  double hidden_error = 0, hidden = 0, w = 0;
  const auto product_error = [&](int f) {
    return dot_tolerance(row_norm(x, r), row_norm(mlp.up.values, f), x.cols) +
           kEpsilon * std::abs(double{products.at(r, f)});
  };
  for (int f = 0; f < ffn; ++f) {
    const double gate = std::abs(double{products.at(r, f)});
    const double up = mlp.gated ? std::abs(double{products.at(r, f + ffn)}) : 1;
    const double error = product_error(f) * up * 1.2 +
                         (mlp.gated ? product_error(f + ffn) * gate : 0) +
                         (8 * kEpsilon + unit_roundoff(input_type(type))) * gate * up;
    hidden_error += error * error;
    hidden += gate * gate * up * up;
    w += double{mlp.down.values.at(c, f)} * double{mlp.down.values.at(c, f)};
  }
  return std::sqrt(hidden_error * w) + dot_tolerance(std::sqrt(hidden), std::sqrt(w), ffn);
}

TEST(Conformance, ActivationsOverTheirWholeRange) {
  Rig rig;
  // From zero, where erf and tanh are nearly straight, through where they bend, to where both are
  // 1 in f32 and far beyond; one product with 1 leaves the value as it is.
  std::vector<float> values = {0, 1e-30f, 1e-10f, 1e4f, 1e15f, 88.5f, 87.3f, 104};
  for (float x = 1e-5f; x < 1; x *= 1.01f) values.push_back(x);
  for (float x = 0.3f; x < 14; x += 0.003f) values.push_back(x);
  Matrix table(static_cast<int>(values.size()), 2);
  for (int i = 0; i < table.rows; ++i) {
    table.at(i, 0) = values[static_cast<size_t>(i)];
    table.at(i, 1) = -values[static_cast<size_t>(i)];
  }
  const Pair input = rig.pack(table, DType::kF32);
  const Weight one = rig.identity(2);
  Rows rows(0);  // no kv
  rows.add_padding(table.rows);
  std::iota(rows.tokens.begin(), rows.tokens.end(), 0);
  rows.want_all();
  for (const Act act : kActs) {
    SCOPED_TRACE(name_of(act));
    const Forward f = [&](Ops& op) {
      return op.logits(op.plain_mlp(op.embed(input.weight), one, one, act), one);
    };
    rig.prepare(f, table.rows);
    Matrix want = table;
    for (float& v : want.values) v = static_cast<float>(ref::activate(double{v}, act));
    // What multiplies x is between 0 and 1, and near those its rounding is one of numbers near 1.
    expect_close(rig.run(f, rows), want,
                 [&](int r, int c) { return 2 * kEpsilon * std::abs(double{table.at(r, c)}); });
  }
}

TEST(Conformance, SoftcapKeepsSmallValuesAsTheyAre) {
  Rig rig;
  Matrix table(4000, 2);
  float x = 1e-6f;
  for (int i = 0; i < table.rows; ++i, x *= 1.005f) {
    table.at(i, 0) = x;
    table.at(i, 1) = -x;
  }
  const Pair input = rig.pack(table, DType::kF32);
  const Weight one = rig.identity(2);
  Rows rows(0);  // no kv
  rows.add_padding(table.rows);
  std::iota(rows.tokens.begin(), rows.tokens.end(), 0);
  rows.want_all();
  const Forward f = [&](Ops& op) { return op.logits(op.embed(input.weight), one, 30); };
  rig.prepare(f, table.rows);
  const Matrix want = ref::logits(table, rows.wanted, identity_matrix(2), 30);
  expect_close(rig.run(f, rows), want,
               [&](int r, int c) { return 4 * kEpsilon * std::abs(double{want.at(r, c)}); });
}

void check_mlp(Rig& rig, bool gated, int rows, int cols, int ffn, DType type, Act act) {
  SCOPED_TRACE(testing::Message() << rows << " rows, " << cols << " -> " << ffn << " " << name(type)
                                  << " " << name_of(act) << (gated ? " gated" : " plain"));
  const Input input(rig, rows, cols, 16);
  const auto bias = [](int count, uint32_t seed) {
    return TestNumbers(seed).floats(static_cast<size_t>(count), 0.5);
  };
  const int up_rows = gated ? 2 * ffn : ffn;
  const Mlp mlp{
      rig.pack(random_matrix(up_rows, cols, 17), type,
               gated ? std::vector<float>{} : bias(ffn, 50)),
      rig.pack(random_matrix(cols, ffn, 18), type, gated ? std::vector<float>{} : bias(cols, 51)),
      gated};
  const Weight& head = rig.identity(cols);
  const Matrix got = run(rig, input, [&](Ops& op) {
    const Tensor x = op.embed(input.table.weight);
    return op.logits(gated ? op.mlp(x, mlp.up.weight, mlp.down.weight, act)
                           : op.plain_mlp(x, mlp.up.weight, mlp.down.weight, act),
                     head);
  });
  const Matrix x = product_input(input.x, type);
  const Matrix want =
      gated ? ref::mlp(x, mlp.up.values, mlp.down.values, act)
            : ref::plain_mlp(x, mlp.up.values, mlp.up.bias, mlp.down.values, mlp.down.bias, act);
  const Matrix products = ref::linear(x, mlp.up.values, mlp.up.bias);
  expect_close(got, want, [&](int r, int c) {
    return mlp_bound(x, mlp, products, type, r, c) + kEpsilon * std::abs(double{want.at(r, c)});
  });
}

TEST(Conformance, MlpOverActivationsShapesAndTypes) {
  Rig rig;
  for (const bool gated : {true, false}) {
    for (const Act act : kActs) {
      for (const DType type : kTypes) {
        for (const auto& [rows, cols, ffn] :
             {std::tuple{1, 16, 2}, {1, 64, 176}, {3, 17, 33}, {9, 100, 75}, {33, 40, 130}}) {
          check_mlp(rig, gated, rows, cols, ffn, type, act);
        }
      }
    }
  }
}

struct MoeCase {
  int rows, cols, ffn, experts, top_k, shared_ffn;  // shared_ffn 0: no shared expert
  bool renormalize, shared_gate;
  Act act = Act::kSilu;
};

std::ostream& operator<<(std::ostream& out, const MoeCase& c) {
  return out << c.rows << " rows, " << c.cols << " -> " << c.ffn << ", " << c.top_k << " of "
             << c.experts << " experts, shared " << c.shared_ffn << (c.shared_gate ? " gated" : "")
             << (c.renormalize ? ", renormalized" : "") << ", " << name_of(c.act);
}

// A mixture on the backend and in the oracle.
class Mixture {
 public:
  Mixture(Rig& rig, const MoeCase& c, DType type, double router_scale = 1) : case_(c), type_(type) {
    router_ = rig.pack(random_matrix(c.experts, c.cols, 60, router_scale), type);
    for (uint32_t e = 0; e < static_cast<uint32_t>(c.experts); ++e) {
      experts_.push_back(expert(rig, c.ffn, 100 + e, type));
      gate_up_.push_back(experts_.back().up.weight);
      down_.push_back(experts_.back().down.weight);
    }
    if (c.shared_ffn > 0) experts_.push_back(shared_ = expert(rig, c.shared_ffn, 61, type));
    if (c.shared_gate) gate_ = rig.pack(random_matrix(1, c.cols, 62), type);
  }

  Moe moe() const {
    Moe m{&router_.weight, gate_up_, down_, case_.top_k, case_.renormalize, case_.act};
    if (case_.shared_ffn > 0) {
      m.shared_gate_up = &shared_.up.weight;
      m.shared_down = &shared_.down.weight;
    }
    if (case_.shared_gate) m.shared_gate = &gate_.weight;
    return m;
  }

  Matrix expected(const Matrix& x) const {
    const ref::ExpertSpec shared{shared_.up.values, shared_.down.values};
    ref::MoeSpec spec{router_.values, {}, case_.top_k, case_.renormalize, case_.act};
    for (size_t e = 0; e < gate_up_.size(); ++e) {
      spec.experts.push_back({experts_[e].up.values, experts_[e].down.values});
    }
    if (case_.shared_ffn > 0) spec.shared = &shared;
    if (case_.shared_gate) spec.shared_gate = gate_.values.values;
    return ref::moe(x, spec);
  }

  // A score's error e changes a weight by the factor exp(e), and the sum of weights as well. As the
  // weights of a row's experts sum up to 1 at most, the worst expert bounds them all.
  Matrix bounds(const Matrix& x) const {
    Matrix bounds(x.rows, x.cols);
    for (size_t e = 0; e < experts_.size(); ++e) {
      const Mlp& mlp = experts_[e];
      const Matrix products = ref::linear(x, mlp.up.values);
      const Matrix part = ref::mlp(x, mlp.up.values, mlp.down.values, case_.act);
      for (int r = 0; r < x.rows; ++r) {
        double score = 0;
        for (int i = 0; i < case_.experts; ++i) {
          score =
              std::max(score, dot_tolerance(row_norm(x, r), row_norm(router_.values, i), x.cols));
        }
        if (case_.shared_gate) {
          score += dot_tolerance(row_norm(x, r), row_norm(gate_.values, 0), x.cols);
        }
        for (int c = 0; c < x.cols; ++c) {
          const double bound = mlp_bound(x, mlp, products, type_, r, c) +
                               (2 * score + 16 * kEpsilon) * std::abs(double{part.at(r, c)});
          // The shared expert's part is added.
          const bool shared = e == gate_up_.size();
          float& most = bounds.at(r, c);
          most = static_cast<float>(shared ? double{most} + bound : std::max(double{most}, bound));
        }
      }
    }
    return bounds;
  }

 private:
  Mlp expert(Rig& rig, int ffn, uint32_t seed, DType type) const {
    return {rig.pack(random_matrix(2 * ffn, case_.cols, seed), type),
            rig.pack(random_matrix(case_.cols, ffn, seed + 500), type)};
  }

  MoeCase case_;
  DType type_;
  Pair router_, gate_;
  Mlp shared_;
  std::vector<Mlp> experts_;  // the shared one, if there is one, is the last
  std::vector<Weight> gate_up_, down_;
};

void check_moe(Rig& rig, const MoeCase& c, DType type, double router_scale = 1) {
  SCOPED_TRACE(testing::Message() << c << ", " << name(type));
  const Input input(rig, c.rows, c.cols, 63);
  const Mixture mixture(rig, c, type, router_scale);
  const Moe moe = mixture.moe();
  const Weight& head = rig.identity(c.cols);
  const Matrix got = run(rig, input, [&](Ops& op) {
    return op.logits(op.moe(op.embed(input.table.weight), moe), head);
  });
  const Matrix x = product_input(input.x, type);
  const Matrix bounds = mixture.bounds(x);
  expect_close(got, mixture.expected(x), [&](int r, int col) { return double{bounds.at(r, col)}; });
}

TEST(Conformance, MoeOverShapesAndTypes) {
  Rig rig;
  for (const DType type : kTypes) {
    check_moe(rig, {1, 16, 2, 2, 1, 0, false, false}, type);
    check_moe(rig, {1, 33, 17, 8, 2, 0, true, false}, type);
    check_moe(rig, {7, 20, 33, 5, 5, 0, false, false}, type);
    check_moe(rig, {40, 17, 10, 8, 2, 0, true, false, Act::kGelu}, type);
    check_moe(rig, {13, 40, 12, 60, 4, 30, false, true}, type);
    check_moe(rig, {64, 31, 9, 16, 8, 7, true, true}, type);
    check_moe(rig, {9, 24, 8, 4, 2, 16, true, false, Act::kGeluTanh}, type);
  }
}

TEST(Conformance, MoeTakesTheLowestExpertOnATie) {
  Rig rig;
  for (const int top_k : {1, 2, 5}) {
    check_moe(rig, {11, 24, 8, 6, top_k, 0, true, false}, DType::kF32, 0);
    check_moe(rig, {11, 24, 8, 6, top_k, 0, false, false}, DType::kF32, 0);
  }
}

TEST(Conformance, MoeWithAllRowsOnOneExpert) {
  Rig rig;
  // Far apart scores: nearly one hot, and exp() of the others runs down to zero.
  check_moe(rig, {50, 24, 40, 6, 1, 0, false, false}, DType::kF32, 200);
  check_moe(rig, {50, 24, 40, 6, 3, 0, true, false}, DType::kF32, 200);
}

}  // namespace
}  // namespace llorch
