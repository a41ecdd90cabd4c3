// Products with quantised weights against the oracle, which takes them and the activations for
// what they stand for; and that a row's result is the same to the bit whatever it is computed with.
#include "base/error.h"
#include "formats/quant.h"
#include "rig.h"

namespace llorch {
namespace {

// Those that the backend has.
const std::vector<DType> kQuantised = [] {
  std::vector<DType> types = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                              DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL};
  if (kBackendInfo.f8) types.push_back(DType::kF8E4M3);
  return types;
}();

// Blocks of random bits, every code among them; scales are as large as those of real weights.
std::vector<std::byte> random_blocks(DType type, int rows, int cols, uint32_t seed) {
  const BlockLayout layout = block_layout(type);
  const auto block_bytes = static_cast<size_t>(layout.bytes);
  std::vector<std::byte> blocks(static_cast<size_t>(rows) * row_bytes(type, cols));
  TestNumbers numbers(seed);
  for (std::byte& byte : blocks) {
    byte = static_cast<std::byte>(numbers.bits() >> 11);
    // Not a NaN.
    if (type == DType::kF8E4M3 && (byte & std::byte{0x7f}) == std::byte{0x7f}) byte ^= std::byte{1};
  }
  const auto put = [&](size_t at, double scale) {
    const uint16_t bits = f16_from_f32(static_cast<float>(scale * (0.5 + numbers.unit())));
    std::memcpy(&blocks[at], &bits, sizeof bits);
  };
  for (size_t at = 0; at < blocks.size(); at += block_bytes) {
    if (type == DType::kQ6_K) {
      put(at + 208, 1e-4);
    } else {
      put(at, layout.values == 256 ? 1e-3 : 1e-2);
      if (type == DType::kQ4_K || type == DType::kQ5_K) put(at + 2, 1e-2);
    }
  }
  return blocks;
}

struct Quantised {
  Quantised(Rig& rig, DType type, int rows, int cols, uint32_t seed, bool biased = false)
      : blocks(random_blocks(type, rows, cols, seed)), raw{"w", type, {rows, cols}, blocks} {
    pair.values = Matrix(rows, cols);
    dequantize(ggml_type_of(type), blocks, pair.values.values.data());
    if (biased) pair.bias = TestNumbers(seed + 1).floats(static_cast<size_t>(rows), 2);
    const auto bias_bytes = bytes_of(pair.bias, DType::kF32);
    const RawTensor raw_bias{"b", DType::kF32, {1, rows}, bias_bytes};
    pair.weight = rig.backend.pack({&raw, 1}, DType::kF32,
                                   biased ? std::span(&raw_bias, 1) : std::span<const RawTensor>());
  }
  Quantised(const Quantised&) = delete;

  std::vector<std::byte> blocks;
  RawTensor raw;
  Pair pair;
};

// Rows with blocks of very different size.
Matrix uneven_matrix(int rows, int cols, uint32_t seed) {
  Matrix x = random_matrix(rows, cols, seed);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) x.at(r, c) *= std::pow(10.0f, float((r + c / 32) % 5 - 2));
  }
  return x;
}

// The minima of a row add up, and the codes' sums with them, before they cancel out: both are as
// large as a value times a small number.
constexpr double kCancels = 8;

auto tolerance(const Matrix& x, const Matrix& w, const Matrix& want) {
  return [&](int r, int c) {
    return kCancels * dot_tolerance(row_norm(x, r), row_norm(w, c), x.cols) +
           kEpsilon * std::abs(double{want.at(r, c)});
  };
}

TEST(Quantised, LinearOverShapesAndTypes) {
  Rig rig;
  for (const DType type : kQuantised) {
    for (const auto& [rows, in, out] : {std::tuple{1, 256, 2},
                                        {2, 512, 33},
                                        {3, 256, 100},
                                        {6, 2304, 31},
                                        {7, 256, 64},
                                        {16, 768, 65},
                                        {17, 256, 96},
                                        {33, 1024, 19},
                                        {130, 256, 47},
                                        {530, 256, 5}}) {
      SCOPED_TRACE(testing::Message()
                   << name(type) << ", " << rows << " rows, " << in << " -> " << out);
      const bool biased = out % 2 == 1;
      const Quantised w(rig, type, out, in, 40, biased);
      const Pair table = rig.pack(uneven_matrix(std::max(rows, 2), in, 41), DType::kF32);
      Input input(rig, rows, in, 42);
      input.table = table;
      input.x.values.assign(table.values.values.begin(),
                            table.values.values.begin() + int64_t{rows} * in);
      const Weight& head = rig.identity(out);
      const Matrix got = run(rig, input, [&](Ops& op) {
        return op.logits(op.linear(op.embed(input.table.weight), w.pair.weight), head);
      });
      const Matrix x = product_input(input.x, type);
      const Matrix want = ref::linear(x, w.pair.values, w.pair.bias);
      expect_close(got, want, tolerance(x, w.pair.values, want));
    }
  }
}

TEST(Quantised, ColumnsThatAreBlocksOf32Only) {
  Rig rig;
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kIQ4_NL}) {
    for (const int in : {32, 96, 1056}) {
      const Quantised w(rig, type, 37, in, 43);
      const Input input(rig, 20, in, 44);
      const Weight& head = rig.identity(37);
      const Matrix got = run(rig, input, [&](Ops& op) {
        return op.logits(op.linear(op.embed(input.table.weight), w.pair.weight), head);
      });
      const Matrix x = product_input(input.x, type);
      const Matrix want = ref::linear(x, w.pair.values);
      expect_close(got, want, tolerance(x, w.pair.values, want));
    }
  }
}

TEST(Quantised, EmbedGivesWhatTheBlocksStandFor) {
  Rig rig;
  for (const DType type : kQuantised) {
    SCOPED_TRACE(name(type));
    const Quantised table(rig, type, 71, 512, 45);
    std::vector<int32_t> ids(71);
    std::iota(ids.begin(), ids.end(), 0);
    Rows rows(0);
    rows.add_padding(71);
    rows.tokens = ids;
    rows.want_all();
    const Weight& head = rig.identity(512);
    const Forward f = [&](Ops& op) { return op.logits(op.embed(table.pair.weight, 0.75f), head); };
    rig.prepare(f, 71);
    EXPECT_EQ(rig.run(f, rows).values, ref::embed(table.pair.values, ids, 0.75f).values);
  }
}

TEST(Quantised, LogitsCapAndPartsOfSeveralTypes) {
  Rig rig;
  const Quantised a(rig, DType::kQ4_K, 40, 256, 46), b(rig, DType::kQ6_K, 24, 256, 47);
  const Matrix c = random_matrix(33, 256, 48, 0.1);
  const auto plain = bytes_of(c.values, DType::kF32);
  const std::vector<RawTensor> parts = {
      a.raw, b.raw, {"c", DType::kF32, {33, 256}, plain}, a.raw, a.raw};
  std::vector<std::vector<std::byte>> kept;
  std::vector<RawTensor> bias;
  std::vector<float> all_bias;
  Matrix stacked(177, 256);
  stacked.values.clear();
  for (const Matrix* m : {&a.pair.values, &b.pair.values, &c, &a.pair.values, &a.pair.values}) {
    stacked.values.insert(stacked.values.end(), m->values.begin(), m->values.end());
    const auto values = TestNumbers(49).floats(static_cast<size_t>(m->rows));
    all_bias.insert(all_bias.end(), values.begin(), values.end());
    kept.push_back(bytes_of(values, DType::kF32));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    bias.push_back({"bias", DType::kF32, {1, parts[i].shape.rows}, kept[i]});
  }
  const Weight w = rig.backend.pack(parts, DType::kF32, bias);
  for (const int rows : {1, 30}) {
    const Input input(rig, rows, 256, 50);
    const Matrix got =
        run(rig, input, [&](Ops& op) { return op.logits(op.embed(input.table.weight), w, 3); });
    const Matrix x = product_input(input.x, DType::kQ4_K);
    Matrix want = ref::linear(x, stacked, all_bias);
    const Matrix exact = ref::linear(input.x, stacked, all_bias);
    for (int r = 0; r < rows; ++r) {
      for (int k = 64; k < 97; ++k) want.at(r, k) = exact.at(r, k);
    }
    for (float& v : want.values) v = 3 * std::tanh(v / 3);
    expect_close(got, want, [&](int r, int k) {
      return kCancels * dot_tolerance(row_norm(input.x, r), row_norm(stacked, k), 256) +
             16 * kEpsilon * 3;
    });
  }
}

// A norm rounds what it gives, for the product that comes next; others must not take that for
// theirs.
TEST(Quantised, ARoundingMeetsNoOtherRowsProduct) {
  constexpr int kRows = 21, kCols = 256;
  Rig rig;
  const Quantised w(rig, DType::kQ8_0, kCols, kCols, 55), up(rig, DType::kQ4_0, 2 * 96, kCols, 56),
      down(rig, DType::kQ8_0, kCols, 96, 57);
  const Weight gains[] = {rig.pack(random_matrix(1, kCols, 58), DType::kF32).weight,
                          rig.pack(random_matrix(1, kCols, 59), DType::kF32).weight};
  const Norm first{.eps = 1e-5f, .gain = &gains[0]}, second{.eps = 1e-5f, .gain = &gains[1]};
  const Input input(rig, kRows, kCols, 60);
  const Weight& head = rig.identity(kCols);
  const auto step = [&](bool rounded_alone) {
    return [&, rounded_alone](Ops& op) {
      const auto given = [&](const Tensor& x) {
        if (!rounded_alone) return x;
        Tensor sum = op.embed(input.table.weight, 0);
        op.add(x, &sum);
        return sum;
      };
      const Tensor x = op.embed(input.table.weight);
      Tensor a = op.norm(x, first);
      const Tensor b = op.norm(x, second);
      Tensor sum = op.linear(given(b), w.pair.weight);
      op.add(op.linear(given(a), w.pair.weight), &sum);
      const Tensor c = op.add_norm(x, &sum, first);
      op.add(op.mlp(given(c), up.pair.weight, down.pair.weight, Act::kSilu), &sum);
      op.add(op.linear(given(c), w.pair.weight), &sum);
      a = op.norm(sum, second);
      a = {};  // its memory is the next tensor's
      const Tensor d = op.add_norm(x, &sum, first);
      op.add(op.linear(given(x), w.pair.weight), &sum);
      op.add(op.linear(given(d), w.pair.weight), &sum);
      return op.logits(sum, head);
    };
  };
  const Matrix alone = run(rig, input, step(true));
  EXPECT_EQ(run(rig, input, step(false)).values, alone.values);
}

TEST(Quantised, MlpRoundsBetweenItsProducts) {
  Rig rig;
  for (const auto& [rows, in, width] : {std::tuple{1, 256, 96}, {20, 96, 256}, {70, 64, 32}}) {
    SCOPED_TRACE(rows);
    const Quantised up(rig, DType::kQ8_0, 2 * width, in, 61),
        down(rig, DType::kQ4_0, 33, width, 62);
    const Input input(rig, rows, in, 63);
    const Weight& head = rig.identity(33);
    const Matrix got = run(rig, input, [&](Ops& op) {
      return op.logits(
          op.mlp(op.embed(input.table.weight), up.pair.weight, down.pair.weight, Act::kSilu), head);
    });
    const Matrix both = ref::linear(product_input(input.x, DType::kQ8_0), up.pair.values);
    Matrix hidden(rows, width);
    for (int r = 0; r < rows; ++r) {
      for (int k = 0; k < width; ++k) {
        hidden.at(r, k) =
            static_cast<float>(ref::activate(both.at(r, k), Act::kSilu) * both.at(r, width + k));
      }
    }
    const Matrix x = product_input(hidden, DType::kQ4_0);
    const Matrix want = ref::linear(x, down.pair.values);
    expect_close(got, want, [&](int r, int c) {
      // One value may lie on the edge between two steps.
      float top = 0, heaviest = 0;
      for (int k = 0; k < hidden.cols; ++k) {
        top = std::max(top, std::abs(hidden.at(r, k)));
        heaviest = std::max(heaviest, std::abs(down.pair.values.at(c, k)));
      }
      return tolerance(x, down.pair.values, want)(r, c) + double{top} / 127 * heaviest;
    });
  }
}

TEST(Quantised, SameBitsWithAnyRowsAndThreads) {
  constexpr int kRows = 70;
  for (const DType type : kQuantised) {
    SCOPED_TRACE(name(type));
    std::vector<float> want;
    for (const int threads : {1, 3}) {
      Rig rig(threads);
      const Quantised w(rig, type, 75, 768, 51);
      const Input input(rig, kRows, 768, 52);
      const Weight& head = rig.identity(75);
      const Forward f = [&](Ops& op) {
        return op.logits(op.linear(op.embed(input.table.weight), w.pair.weight), head);
      };
      rig.prepare(f, kRows);
      const Matrix all = rig.run(f, input.rows());
      if (want.empty()) want = all.values;
      ASSERT_TRUE(all.values == want) << threads << " threads";
      for (const int count : {1, 2, 3, 5, 6, 7, 8, 15, 16, 17, 31, 33, 48, 65}) {
        for (int first = 0; first + count <= kRows; first += count) {
          Rows some(0);
          some.add_padding(count);
          std::iota(some.tokens.begin(), some.tokens.end(), first);
          some.want_all();
          const auto begin = want.begin() + first * 75;
          ASSERT_TRUE(rig.run(f, some).values == std::vector<float>(begin, begin + count * 75))
              << count << " rows from " << first;
        }
      }
    }
  }
}

TEST(Quantised, WhatIsNotFiniteStaysSo) {
  Rig rig;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    Matrix x = random_matrix(20, 256, 53);
    x.at(7, 77) = bad;
    const Pair table = rig.pack(x, DType::kF32);
    const Quantised w(rig, DType::kQ4_K, 33, 256, 54);
    Rows rows(0);
    rows.add_padding(20);
    std::iota(rows.tokens.begin(), rows.tokens.end(), 0);
    rows.want_all();
    const Forward f = [&](Ops& op) { return op.logits(op.embed(table.weight), w.pair.weight); };
    rig.prepare(f, 20);
    const std::vector<int32_t> tokens = rig.tokens(f, rows);
    for (size_t r = 0; r < 20; ++r) EXPECT_EQ(tokens[r] == -1, r == 7) << bad << ", row " << r;
  }
}

TEST(Quantised, TinyActivationsCountAsZero) {
  Rig rig;
  Matrix x(20, 256);
  for (int c = 0; c < 256; ++c) x.at(9, c) = 1e-42f * static_cast<float>(c % 2);
  Input input(rig, 20, 256, 53);
  input.table = rig.pack(x, DType::kF32);
  const Quantised w(rig, DType::kQ4_K, 33, 256, 54);
  const Matrix got = run(
      rig, input, [&](Ops& op) { return op.logits(op.embed(input.table.weight), w.pair.weight); });
  for (const float v : got.values) EXPECT_EQ(v, 0);
}

TEST(Quantised, RefusesWhatIsNoWholeBlock) {
  Rig rig;
  const std::vector<std::byte> bytes(1000);
  const auto refused = [&](const RawTensor& raw, const std::string& text) {
    try {
      rig.backend.pack({&raw, 1}, DType::kF32);
      ADD_FAILURE() << "not refused: " << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  };
  const auto part = [&](size_t count) { return std::span(bytes).first(count); };
  refused({"w", DType::kQ8_0, {2, 33}, part(68)}, "w columns; got 33, want whole blocks of 32");
  refused({"w", DType::kQ8_0, {2, 32}, part(67)}, "w bytes; got 67, want 68");
  refused({"w", DType::kQ4_K, {2, 32}, part(36)}, "want whole blocks of 256");
  refused({"w", DType::kQ4_0, {1, 32}, part(18)}, "w is quantised");
}

TEST(Quantised, RefusesF8WhereItIsNotThere) {
  if (kBackendInfo.f8) GTEST_SKIP();
  Rig rig;
  const std::vector<std::byte> bytes(2 * 34);
  const RawTensor raw{"w", DType::kF8E4M3, {2, 32}, bytes};
  const auto refused = [](const auto& body) {
    try {
      body();
      ADD_FAILURE() << "not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << error.what();
      EXPECT_NE(std::string(error.what()).find("f8_e4m3"), std::string::npos) << error.what();
    }
  };
  refused([&] { rig.backend.pack({&raw, 1}, DType::kF32); });
  const KvSpec spec{.groups = {{.layers = 1}},
                    .kv_heads = 1,
                    .head_dim = 32,
                    .block_tokens = 4,
                    .type = DType::kF8E4M3};
  refused([&] { rig.create_kv(spec, 1); });
}

}  // namespace
}  // namespace llorch
