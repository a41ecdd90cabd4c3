// Every op on the linked backend against the scalar oracle, over ragged shapes and stored types.
#include <random>
#include <sstream>
#include <tuple>

#include "rig.h"

namespace llorch {
namespace {

// Says once, for ctest, that the instruction set asked for is not there.
class Available : public testing::Environment {
 public:
  void SetUp() override {
    try {
      const Backend backend{BackendOptions{}};
    } catch (const std::exception& error) {
      GTEST_SKIP() << error.what();
    }
  }
};
const auto* const kAvailable = testing::AddGlobalTestEnvironment(new Available);

TEST(Conformance, EmbedGathersAndScalesRows) {
  Rig rig;
  for (const DType type : kTypes) {
    for (const auto& [vocab, cols] : {std::pair{2, 3}, {5, 17}, {33, 64}, {47, 100}, {131, 259}}) {
      SCOPED_TRACE(testing::Message() << name(type) << " " << vocab << " x " << cols);
      const Input input(rig, vocab, cols, 1, type);
      const Weight& head = rig.identity(cols);
      const Matrix got = run(rig, input, [&](Ops& op) {
        return op.logits(op.embed(input.table.weight, 0.75f), head);
      });
      std::vector<int32_t> ids(static_cast<size_t>(vocab));
      std::iota(ids.begin(), ids.end(), 0);
      // Gathering, widening and one product: exact.
      EXPECT_EQ(got.values, ref::embed(input.table.values, ids, 0.75f).values);
    }
  }
}

// A norm's weights on the backend and in the oracle.
struct NormPair {
  NormPair(Rig& rig, NormKind kind, float eps, int cols, bool biased, uint32_t seed,
           DType type = DType::kF32)
      : gain(rig.pack(random_matrix(1, cols, seed), type, {}, type)),
        bias(rig.pack(random_matrix(1, cols, seed + 1000), type, {}, type)),
        norm{kind, eps, &gain.weight, biased ? &bias.weight : nullptr},
        spec{kind, eps, gain.values.values, {}} {
    if (biased) spec.bias = bias.values.values;
  }
  NormPair(const NormPair&) = delete;

  Pair gain, bias;
  Norm norm;
  ref::NormSpec spec;
};

// How far norm() of `x` may be from `want`. A root mean square has half the relative error of its
// sum of squares. A mean errs like a dot product with 1/n, and each difference by a rounding more;
// both reach the result times gain over the deviation.
auto norm_tolerance(const Matrix& x, const Matrix& want, const ref::NormSpec& spec) {
  return [&x, &want, &spec](int r, int c) {
    const int n = x.cols;
    const auto at = static_cast<size_t>(c);
    const double bias = spec.bias.empty() ? 0 : double{spec.bias[at]};
    const double scaled = std::abs(double{want.at(r, c)} - bias);
    double bound = dot_tolerance(1, 1, n) * scaled + kEpsilon * std::abs(double{want.at(r, c)});
    if (spec.kind == NormKind::kLayer) {
      double mean = 0, squares = 0;
      for (int i = 0; i < n; ++i) mean += double{x.at(r, i)} / n;
      for (int i = 0; i < n; ++i) squares += std::pow(double{x.at(r, i)} - mean, 2);
      const double deviation = std::sqrt(squares / n + double{spec.eps});
      const double moved = dot_tolerance(row_norm(x, r), 1 / std::sqrt(n), n) +
                           kEpsilon * (std::abs(double{x.at(r, c)}) + std::abs(mean));
      // The same error of the mean adds to every difference, so to the deviation at most as much.
      bound += moved / deviation * (std::abs(double{spec.gain[at]}) + scaled);
    }
    return bound;
  };
}

struct NormCase {
  NormKind kind;
  bool biased;
};
constexpr NormCase kNorms[] = {
    {NormKind::kRms, false}, {NormKind::kLayer, false}, {NormKind::kLayer, true}};

TEST(Conformance, NormOfBothKinds) {
  Rig rig;
  for (const auto& [kind, biased] : kNorms) {
    for (const int cols : {2, 7, 16, 17, 64, 100, 577}) {
      for (const DType type : kTypes) {
        SCOPED_TRACE(testing::Message() << (kind == NormKind::kRms ? "rms" : "layer") << " of "
                                        << cols << ", " << name(type) << ", bias " << biased);
        const Input input(rig, 9, cols, 2);
        const NormPair n(rig, kind, 1e-5f, cols, biased, 3, type);
        const Weight& head = rig.identity(cols);
        const Matrix got = run(rig, input, [&](Ops& op) {
          return op.logits(op.norm(op.embed(input.table.weight), n.norm), head);
        });
        const Matrix want = ref::norm(input.x, n.spec);
        expect_close(got, want, norm_tolerance(input.x, want, n.spec));
      }
    }
  }
}

TEST(Conformance, AddNormGivesTheSumAndItsNorm) {
  Rig rig;
  for (const auto& [kind, biased] : kNorms) {
    for (const int cols : {2, 15, 64, 100}) {
      SCOPED_TRACE(cols);
      const Input input(rig, 11, cols, 4);
      const NormPair n(rig, kind, 1e-6f, cols, biased, 5);
      const Weight& head = rig.identity(cols);
      const Forward normed = [&](Ops& op) {
        Tensor sum = op.embed(input.table.weight, 3);
        const Tensor x = op.embed(input.table.weight);
        return op.logits(op.add_norm(x, &sum, n.norm), head);
      };
      // add_norm and add leave their inputs as they were: 4 x + 3 x.
      const Forward summed = [&](Ops& op) {
        Tensor sum = op.embed(input.table.weight, 3);
        const Tensor before = sum;
        op.add_norm(op.embed(input.table.weight), &sum, n.norm);
        op.add_norm(before, &sum, n.norm);
        return op.logits(sum, head);
      };
      const Forward added = [&](Ops& op) {
        Tensor sum = op.embed(input.table.weight, 3);
        const Tensor before = sum;
        op.add(op.embed(input.table.weight), &sum);
        op.add(before, &sum);
        return op.logits(sum, head);
      };
      std::vector<int32_t> ids(11);
      std::iota(ids.begin(), ids.end(), 0);
      const Matrix three = ref::embed(input.x, ids, 3);
      const Matrix four = ref::add(three, input.x);
      const Matrix want = ref::norm(four, n.spec);
      expect_close(run(rig, input, normed), want, norm_tolerance(four, want, n.spec));
      EXPECT_EQ(run(rig, input, summed).values, ref::add(four, three).values);
      EXPECT_EQ(run(rig, input, added).values, ref::add(four, three).values);
    }
  }
}

struct LinearShape {
  int rows, in, out;
};

void check_linear(Rig& rig, const LinearShape& shape, DType type, DType given, bool biased) {
  std::ostringstream label;
  label << shape.rows << " rows, " << shape.in << " -> " << shape.out << " as " << name(type)
        << " from " << name(given) << (biased ? " with bias" : "");
  SCOPED_TRACE(label.str());
  const Input input(rig, shape.rows, shape.in, 6);
  const auto bias =
      biased ? TestNumbers(7).floats(static_cast<size_t>(shape.out), 2) : std::vector<float>{};
  const Pair w = rig.pack(random_matrix(shape.out, shape.in, 8, 0.5), type, bias, given);
  const Weight& head = rig.identity(shape.out);
  const Matrix got = run(rig, input, [&](Ops& op) {
    return op.logits(op.linear(op.embed(input.table.weight), w.weight), head);
  });
  const Matrix want = ref::linear(product_input(input.x, type), w.values, w.bias);
  expect_close(got, want, [&](int r, int c) {
    return dot_tolerance(row_norm(input.x, r), row_norm(w.values, c), shape.in) +
           kEpsilon * std::abs(double{want.at(r, c)});
  });
}

TEST(Conformance, LinearOverShapesAndTypes) {
  Rig rig;
  const LinearShape shapes[] = {{1, 1, 2},     {1, 17, 3},    {2, 64, 16},   {3, 100, 31},
                                {4, 255, 33},  {5, 256, 64},  {6, 257, 65},  {7, 64, 100},
                                {12, 513, 47}, {13, 300, 47}, {14, 64, 129}, {64, 100, 17},
                                {70, 520, 95}, {129, 65, 40}, {300, 33, 19}};
  for (const LinearShape& shape : shapes) {
    for (const DType type : kTypes) check_linear(rig, shape, type, DType::kF32, shape.in % 2 == 1);
  }
}

TEST(Conformance, LinearFromEveryStoredType) {
  Rig rig;
  for (const DType type : kTypes) {
    for (const DType given : kTypes) check_linear(rig, {5, 130, 37}, type, given, true);
  }
}

TEST(Conformance, LinearStacksItsParts) {
  Rig rig;
  const Input input(rig, 4, 20, 9);
  const Matrix a = random_matrix(5, 20, 10), b = random_matrix(18, 20, 11),
               c = random_matrix(1, 20, 12);
  const auto bias_a = TestNumbers(13).floats(5), bias_b = TestNumbers(14).floats(18),
             bias_c = TestNumbers(15).floats(1);
  std::vector<std::vector<std::byte>> kept;
  const auto raw = [&kept](const char* name, const std::vector<float>& values, Shape shape) {
    kept.push_back(bytes_of(values, DType::kF32));
    return RawTensor{name, DType::kF32, shape, kept.back()};
  };
  const std::vector<RawTensor> parts = {raw("a", a.values, {5, 20}), raw("b", b.values, {18, 20}),
                                        raw("c", c.values, {1, 20})};
  const std::vector<RawTensor> bias = {raw("x", bias_a, {1, 5}), raw("y", bias_b, {1, 18}),
                                       raw("z", bias_c, {1, 1})};
  const Weight w = rig.backend.pack(parts, DType::kF32, bias);
  Matrix stacked(24, 20);
  std::vector<float> all_bias;
  stacked.values.clear();
  for (const Matrix* m : {&a, &b, &c}) {
    stacked.values.insert(stacked.values.end(), m->values.begin(), m->values.end());
  }
  for (const auto* v : {&bias_a, &bias_b, &bias_c}) {
    all_bias.insert(all_bias.end(), v->begin(), v->end());
  }
  const Weight& head = rig.identity(24);
  const Matrix got = run(rig, input, [&](Ops& op) {
    return op.logits(op.linear(op.embed(input.table.weight), w), head);
  });
  const Matrix want = ref::linear(input.x, stacked, all_bias);
  expect_close(got, want, [&](int r, int c) {
    return dot_tolerance(row_norm(input.x, r), row_norm(stacked, c), 20) +
           kEpsilon * std::abs(double{want.at(r, c)});
  });
}

TEST(Conformance, LogitsPickRowsAndCap) {
  Rig rig;
  for (const DType type : kTypes) {
    for (const auto& [rows, cols, vocab] : {std::tuple{1, 17, 3}, {9, 64, 50}, {70, 33, 131}}) {
      for (const float cap : {0.0f, 1.5f}) {
        SCOPED_TRACE(testing::Message()
                     << rows << " x " << cols << " x " << vocab << " " << name(type));
        const Input input(rig, rows, cols, 19);
        const Pair head = rig.pack(random_matrix(vocab, cols, 20), type);
        const Forward f = [&](Ops& op) {
          return op.logits(op.embed(input.table.weight), head.weight, cap);
        };
        rig.prepare(f, rows);
        Rows batch = input.rows();
        batch.wanted.clear();
        for (int32_t r = 0; r < rows; ++r) {
          if (r % 3 != 1) batch.wanted.push_back(r);
        }
        const Matrix want =
            ref::logits(product_input(input.x, type), batch.wanted, head.values, cap);
        // The cap's slope is at most 1; it adds a few roundings of numbers up to its size.
        expect_close(rig.run(f, batch), want, [&, cols = cols](int r, int c) {
          return dot_tolerance(row_norm(input.x, batch.wanted[static_cast<size_t>(r)]),
                               row_norm(head.values, c), cols) +
                 8 * kEpsilon * cap;
        });
      }
    }
  }
}

TEST(Conformance, TiedHeadReadsTheTableOfEmbed) {
  Rig rig;
  for (const DType type : kTypes) {
    const Input input(rig, 37, 50, 21, type);
    const Matrix got = run(rig, input, [&](Ops& op) {
      return op.logits(op.embed(input.table.weight), input.table.weight);
    });
    const Matrix want = ref::linear(product_input(input.x, type), input.x);
    expect_close(got, want, [&](int r, int c) {
      return dot_tolerance(row_norm(input.x, r), row_norm(input.x, c), 50);
    });
  }
}

// What an attention test varies.
struct Case {
  int heads, kv_heads, head_dim, block_tokens;
  DType type;
  int rope_dims = 0;
  bool interleaved = false;
  int window = 0;
  float softcap = 0;
  const NormCase* head_norms = nullptr;
  int trained = 0;  // longrope beyond so many tokens, or dynamic NTK with ntk_factor
  double ntk_factor = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.heads << "/" << c.kv_heads << " heads of " << c.head_dim << ", blocks of "
             << c.block_tokens << ", " << name(c.type) << ", rope " << c.rope_dims
             << (c.interleaved ? " interleaved" : "") << ", window " << c.window << ", cap "
             << c.softcap << (c.head_norms ? ", norms" : "") << ", trained for " << c.trained
             << ", ntk " << c.ntk_factor;
}

// Some sequences that grow step by step on shuffled blocks, on the backend and in the oracle, in
// the second of two kv groups. What falls out of the window is given up, and soon full of NaN.
class AttentionRun {
 public:
  static constexpr int kSequences = 4, kLength = 150, kTokens = 61, kNan = kTokens, kRows = 150;

  explicit AttentionRun(const Case& c) : case_(c), numbers_(99) {
    const int cols = (c.heads + 2 * c.kv_heads) * c.head_dim;
    Matrix table = random_matrix(kTokens + 1, cols, 30);
    for (int i = 0; i < cols; ++i) table.at(kNan, i) = std::numeric_limits<float>::quiet_NaN();
    table_ = rig_.pack(std::move(table), DType::kF32);
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
    spec_.heads = c.heads;
    spec_.kv_heads = c.kv_heads;
    spec_.head_dim = c.head_dim;
    spec_.window = c.window;
    spec_.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    spec_.softcap = c.softcap;
    spec_.rope = c.rope_dims > 0 ? &rope_ : nullptr;
    if (c.head_norms) {
      const auto& [kind, biased] = *c.head_norms;
      q_norm_ = std::make_unique<NormPair>(rig_, kind, 1e-6f, c.head_dim, biased, 31);
      k_norm_ = std::make_unique<NormPair>(rig_, kind, 1e-6f, c.head_dim, biased, 32);
      spec_.q_norm = q_norm_->spec;
      spec_.k_norm = k_norm_->spec;
    }
    share_blocks();
    head_ = rig_.identity(c.heads * c.head_dim);
  }

  void step(const std::vector<int>& new_rows, int padding) {
    Rows rows(2);
    Matrix want(0, case_.heads * case_.head_dim);
    bounds_.clear();
    for (size_t s = 0; s < new_rows.size(); ++s) {
      if (new_rows[s] == 0) continue;
      add_sequence(s, new_rows[s], &rows, &want);
      if (padding > 0) {
        rows.add_padding(padding);
        want.rows += padding;
        want.values.resize(want.values.size() + static_cast<size_t>(padding * want.cols));
        bounds_.resize(bounds_.size() + static_cast<size_t>(padding));
      }
    }
    rows.want_all();
    poison_unseen(&rows);
    for (const int32_t position : rows.positions) rows.rope_len.push_back(position + 1);
    if (!prepared_) {
      rig_.prepare(forward(), kRows);
      rig_.create_kv(kv_spec(), blocks_);
      prepared_ = true;
    }
    expect_close(rig_.run(forward(), rows), want,
                 [&](int r, int) { return bounds_[static_cast<size_t>(r)]; });
  }

 private:
  KvSpec kv_spec() const {
    return {.groups = {{.layers = 1}, {.layers = 2, .window = case_.window}},
            .kv_heads = case_.kv_heads,
            .head_dim = case_.head_dim,
            .block_tokens = case_.block_tokens,
            .type = case_.type};
  }

  // The second of two layers, and other values in the other group, so that a wrong place shows.
  Forward forward() const {
    return [this](Ops& op) {
      Attention a{.group = 1,
                  .layer = 1,
                  .heads = spec_.heads,
                  .kv_heads = spec_.kv_heads,
                  .head_dim = spec_.head_dim,
                  .window = spec_.window,
                  .scale = spec_.scale,
                  .softcap = spec_.softcap,
                  .rope = spec_.rope};
      if (case_.head_norms) {
        a.q_norm = &q_norm_->norm;
        a.k_norm = &k_norm_->norm;
      }
      Attention other = a;
      other.layer = 0;
      op.attention(op.embed(table_.weight, 5), other);
      other.group = other.window = 0;
      op.attention(op.embed(table_.weight, 7), other);
      return op.logits(op.attention(op.embed(table_.weight), a), head_);
    };
  }

  void share_blocks() {
    const int each = (kLength + case_.block_tokens - 1) / case_.block_tokens;
    blocks_ = each * kSequences + 3;
    std::vector<int32_t> all(static_cast<size_t>(blocks_));
    std::iota(all.begin(), all.end(), 0);
    for (auto& tables : tables_) {
      std::shuffle(all.begin(), all.end(), std::mt19937(static_cast<uint32_t>(5 + all[0])));
      for (int s = 0; s < kSequences; ++s) {
        tables.emplace_back(all.begin() + s * each, all.begin() + (s + 1) * each);
      }
      spares_.push_back(all.back());
    }
    for (int s = 0; s < kSequences; ++s) {
      caches_.push_back({case_.type, {}, {}});
      lengths_.push_back(0);
    }
    rig_.create_kv(kv_spec(), 1);
  }

  // Gives up the blocks of which no row from `position` on sees anything.
  void drop_unseen(size_t s, int position) {
    if (case_.window == 0) return;
    Table& table = tables_[1][s];
    for (int i = 0; i < std::max(0, position - case_.window + 1) / case_.block_tokens; ++i) {
      int32_t& block = table[static_cast<size_t>(i)];
      if (block >= 0) unseen_.push_back(std::exchange(block, -1));
    }
  }

  // Another sequence takes what was given up.
  void poison_unseen(Rows* rows) {
    while (!unseen_.empty() && rows->size() + case_.block_tokens <= kRows) {
      rows->add(std::vector<int32_t>(static_cast<size_t>(case_.block_tokens), kNan), 0,
                std::vector<Table>{{spares_[0]}, {unseen_.back()}}, case_.block_tokens);
      unseen_.pop_back();
    }
  }

  void add_sequence(size_t s, int count, Rows* rows, Matrix* want) {
    std::vector<int32_t> ids, positions, lengths;
    for (int i = 0; i < count; ++i) {
      ids.push_back(static_cast<int32_t>(numbers_.unit() * kTokens));
      positions.push_back(lengths_[s] + i);
      lengths.push_back(positions.back() + 1);
    }
    drop_unseen(s, lengths_[s]);
    rows->add(ids, lengths_[s], std::vector<Table>{tables_[0][s], tables_[1][s]},
              case_.block_tokens);
    lengths_[s] += count;
    const Matrix out =
        ref::attention(ref::embed(table_.values, ids, 1), positions, spec_, &caches_[s], lengths);
    want->rows += out.rows;
    want->values.insert(want->values.end(), out.values.begin(), out.values.end());
    for (const int32_t id : ids) bounds_.push_back(bound(id, caches_[s]));
  }

  // A score's error e changes a weight by the factor exp(e) and the weights' sum as well, so the
  // result by at most 2 e times the largest value. Keys are rounded to the stored type after norm
  // and rope: a difference in the last bit of f32 may there become one of the stored type.
  double bound(int32_t id, const ref::KvCache& cache) const {
    const int n = case_.head_dim;
    double q = 0, k = 0, v = 0, largest_q = 0, largest_k = 0;
    for (int h = 0; h < case_.heads; ++h) {
      std::vector<float> head(static_cast<size_t>(n));
      for (int d = 0; d < n; ++d) head[static_cast<size_t>(d)] = table_.values.at(id, h * n + d);
      double norm = norm_of(head.data(), n);
      if (case_.head_norms) norm = std::sqrt(static_cast<double>(n));
      q = std::max(q, norm * double{rope_.factor});
    }
    largest_q = q;
    for (size_t j = 0; j < cache.keys.size(); ++j) {
      for (int h = 0; h < case_.kv_heads; ++h)
        k = std::max(k, norm_of(&cache.keys[j][static_cast<size_t>(h * n)], n));
      for (const float x : cache.keys[j]) largest_k = std::max(largest_k, std::abs(double{x}));
      for (const float x : cache.values[j]) v = std::max(v, std::abs(double{x}));
    }
    const bool exact = case_.rope_dims == 0 && case_.head_norms == nullptr;
    const double stored = case_.type == DType::kF32 || exact ? 0
                          : case_.type == DType::kF16        ? std::ldexp(1, -10)
                          : case_.type == DType::kBF16       ? std::ldexp(1, -7)
                          : case_.type == DType::kQ8_0       ? 1.0 / 127
                                                             : 1.0 / 14;
    // Norm and rope err by a few epsilon each, which reaches the score like a longer sum.
    const double roundoff = attention_roundoff(case_.type);
    const double score =
        double{spec_.scale} * (3 * dot_tolerance(q, k, n) + 2 * roundoff * q * k +
                               2 * stored * largest_q * largest_k / std::sqrt(double(n))) +
        8 * kEpsilon * double{spec_.softcap};
    return v *
           (2 * score + 3 * roundoff + dot_tolerance(1, 1, static_cast<int>(cache.keys.size())));
  }

  Case case_;
  TestNumbers numbers_;
  Rig rig_;
  Pair table_;
  std::unique_ptr<NormPair> q_norm_, k_norm_;
  Weight head_;
  Rope rope_;
  ref::AttentionSpec spec_;
  int32_t blocks_ = 0;
  bool prepared_ = false;
  std::vector<Table> tables_[2];  // of each kv group
  std::vector<int32_t> spares_;   // a block of no table
  std::vector<int32_t> unseen_;
  std::vector<ref::KvCache> caches_;
  std::vector<int32_t> lengths_;
  std::vector<double> bounds_;
};

void check_attention(const Case& c) {
  SCOPED_TRACE(testing::Message() << c);
  AttentionRun run(c);
  run.step({37, 0, 1, 0}, 0);
  run.step({1, 17, 1, 2}, 0);
  run.step({1, 1, 1, 1}, 1);
  run.step({30, 1, 5, 0}, 2);
  run.step({1, 1, 62, 1}, 0);
  run.step({66, 1, 0, 3}, 0);
  run.step({1, 1, 1, 1}, 0);
}

TEST(Conformance, AttentionOverHeadsAndDims) {
  for (const DType type : kKvTypes) {
    check_attention({1, 1, 6, 4, type, 6});
    check_attention({2, 1, 16, 1, type, 16});
    check_attention({3, 3, 20, 16, type, 20});
    check_attention({4, 2, 64, 16, type, 64});
    check_attention({8, 2, 80, 4, type, 80});
    check_attention({6, 2, 96, 16, type, 24});
    check_attention({8, 1, 128, 16, type, 128});
    check_attention({2, 1, 256, 32, type, 256});
    check_attention({20, 1, 16, 16, type, 8});
  }
}

TEST(Conformance, AttentionWithoutRope) {
  for (const DType type : kKvTypes) {
    check_attention({4, 4, 24, 5, type});
    check_attention({4, 2, 72, 16, type});
  }
}

TEST(Conformance, AttentionWithRopeOfSomeDims) {
  check_attention({4, 2, 80, 16, DType::kF32, 32});
  check_attention({4, 2, 20, 16, DType::kF32, 10, true});
  check_attention({2, 2, 64, 16, DType::kBF16, 64, true});
}

TEST(Conformance, AttentionInAWindow) {
  for (const int window : {1, 2, 16, 33, 63, 64, 65, 200}) {
    check_attention({4, 2, 16, 4, DType::kF32, 16, false, window});
    check_attention({2, 2, 32, 16, DType::kBF16, 32, false, window});
  }
  check_attention({4, 1, 20, 1, DType::kF16, 20, false, 7});
  check_attention({4, 2, 40, 4, DType::kQ8_0, 40, false, 33});
}

TEST(Conformance, AttentionWithRopesThatDependOnTheLength) {
  for (const double ntk_factor : {0.0, 2.5}) {
    check_attention({4, 2, 16, 4, DType::kF32, 16, false, 0, 0, nullptr, 40, ntk_factor});
    check_attention({4, 4, 24, 16, DType::kF32, 8, false, 30, 0, nullptr, 66, ntk_factor});
    check_attention({2, 1, 64, 16, DType::kBF16, 64, true, 0, 0, nullptr, 1, ntk_factor});
  }
}

TEST(Conformance, AttentionWithSoftcapAndHeadNorms) {
  check_attention({4, 2, 32, 16, DType::kF32, 32, false, 0, 1.5f});
  check_attention({4, 2, 32, 16, DType::kF32, 32, false, 20, 50});
  for (const NormCase& norms : kNorms) {
    check_attention({4, 2, 20, 16, DType::kF32, 20, false, 0, 0, &norms});
    check_attention({4, 1, 64, 16, DType::kBF16, 64, false, 40, 2.5f, &norms});
    check_attention({4, 1, 64, 16, DType::kQ8_0, 64, false, 40, 2.5f, &norms});
  }
}

}  // namespace
}  // namespace llorch
