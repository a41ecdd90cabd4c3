// The oracle against torch and transformers (values made with torch 2, transformers 5).
#include "ops/ref_ops.h"

#include <span>

#include "gtest/gtest.h"
#include "ops/test_numbers.h"

namespace llorch::ref {
namespace {

Matrix made(int rows, int cols, uint32_t seed, float factor = 1) {
  Matrix m(rows, cols);
  m.values = TestNumbers(seed).floats(m.values.size());
  for (float& v : m.values) v *= factor;
  return m;
}

void expect_near(std::span<const float> got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-6) << "at " << i;
}

TEST(RefOps, NormIsTorchsRmsNorm) {
  const auto gain = TestNumbers(2).floats(3);
  expect_near(norm(made(2, 3, 1), {NormKind::kRms, 1e-5f, gain}).values,
              {0.81653017f, 0.061604779f, -0.015534748f, -0.3655729f, 0.12197704f, 0.27518961f});
}

TEST(RefOps, NormIsTorchsLayerNorm) {
  const auto gain = TestNumbers(2).floats(3), bias = TestNumbers(4).floats(3);
  expect_near(norm(made(2, 3, 1), {NormKind::kLayer, 1e-5f, gain}).values,
              {0.64279598f, 0.00052623288f, -0.76387f, -0.64990294f, 0.097211793f, 0.012721557f});
  expect_near(norm(made(2, 3, 1), {NormKind::kLayer, 1e-5f, gain, bias}).values,
              {0.11803225f, 0.28329006f, -0.64713633f, -1.1746666f, 0.37997565f, 0.12945522f});
}

TEST(RefOps, LinearIsTorchs) {
  const auto bias = TestNumbers(4).floats(4);
  expect_near(linear(made(2, 3, 1), made(4, 3, 3), bias).values,
              {-0.26791826f, 0.055861458f, 0.022882909f, 0.54779619f, -1.0262448f, 0.53036225f,
               0.67260134f, 1.3027713f});
}

TEST(RefOps, MlpIsTorchsForEveryActivation) {
  const Matrix x = made(2, 3, 1), gate_up = made(4, 3, 5), down = made(3, 2, 6);
  expect_near(mlp(x, gate_up, down, Act::kSilu).values,
              {0.014154343f, 0.033889685f, -0.026999496f, 0.06159211f, -0.13145193f, 0.045540389f});
  expect_near(mlp(x, gate_up, down, Act::kGeluTanh).values,
              {0.01035043f, 0.029989254f, -0.022787116f, 0.048519067f, -0.10982481f, 0.039541345f});
  expect_near(mlp(x, gate_up, down, Act::kGelu).values,
              {0.010348723f, 0.02998722f, -0.022785062f, 0.048512544f, -0.10981413f, 0.039538421f});
}

TEST(RefOps, PlainMlpIsTorchsForEveryActivation) {
  const Matrix x = made(2, 3, 1), up = made(4, 3, 5), down = made(3, 4, 6);
  const auto up_bias = TestNumbers(4).floats(4), down_bias = TestNumbers(2).floats(3);
  const auto expect_act = [&](Act act, const std::vector<float>& want) {
    expect_near(plain_mlp(x, up, up_bias, down, down_bias, act).values, want);
  };
  expect_act(Act::kSilu,
             {-0.15988779f, -0.055055112f, -0.51578337f, 1.5018214f, -0.81022215f, 0.63060105f});
  expect_act(Act::kGeluTanh,
             {-0.13471699f, -0.078155771f, -0.48692715f, 1.6729113f, -0.90957958f, 0.78913188f});
  expect_act(Act::kGelu,
             {-0.13470829f, -0.078165948f, -0.48691681f, 1.6729096f, -0.90952694f, 0.78915179f});
}

TEST(RefOps, MoeIsTransformersMixtralAndQwen2Moe) {
  const Matrix x = made(3, 3, 12, 2);
  MoeSpec spec{.router = made(4, 3, 11, 2), .top_k = 2, .renormalize = true};
  for (uint32_t e = 0; e < 4; ++e) spec.experts.push_back({made(4, 3, 20 + e), made(3, 2, 30 + e)});
  expect_near(moe(x, spec).values, {2.0944543f, -2.1153879f, -0.14128014f, 0.30948427f, 0.18065292f,
                                    0.20128705f, -0.016188569f, 0.024706522f, 0.051709309f});
  const ExpertSpec shared{made(8, 3, 40), made(3, 4, 41)};
  const auto gate = TestNumbers(42).floats(3);
  spec.top_k = 3;
  spec.shared = &shared;
  spec.shared_gate = gate;
  expect_near(moe(x, spec).values, {0.70043385f, -1.1825317f, -0.65169591f, 1.6616879f, -0.3597813f,
                                    0.83451152f, -0.047980022f, 0.063974753f, -0.021200016f});
  spec.renormalize = false;
  expect_near(moe(x, spec).values, {0.69473457f, -1.1767123f, -0.65125895f, 1.6307687f, -0.3631041f,
                                    0.82822359f, -0.048036829f, 0.063546538f, -0.025018062f});
}

TEST(RefOps, RopeIsTransformersInBothPairings) {
  Rope spec{.dims = 6, .interleaved = true, .factor = 1.1f, .inv_freq = {1, 0.25f, 0.01f}};
  auto head = TestNumbers(10).floats(8);
  rope(head, spec, 7);
  expect_near(head, {0.023092091f, -0.89732975f, 0.93472016f, 0.54184341f, -0.92862445f,
                     -0.94966096f, 0.30819249f, 0.60313034f});
  spec.interleaved = false;
  head = TestNumbers(10).floats(8);
  rope(head, spec, 7);
  expect_near(head, {0.23639119f, 1.1001614f, 0.42737499f, -1.1420937f, -0.50363594f, -0.85458565f,
                     0.30819249f, 0.60313034f});
}

// Four heads on two kv heads of four dims, five tokens in chunks of 2 and 3; rows 0 and 4.
std::vector<float> attended(const AttentionSpec& spec) {
  const Matrix qkv = made(5, 32, 7, 2);
  const std::vector<int32_t> positions = {0, 1, 2, 3, 4};
  KvCache cache;
  std::vector<float> all;
  for (const auto& [first, count] : {std::pair{0, 2}, std::pair{2, 3}}) {
    Matrix part(count, 32);
    for (int r = 0; r < count; ++r) {
      for (int c = 0; c < 32; ++c) part.at(r, c) = qkv.at(first + r, c);
    }
    const auto at =
        std::span(positions).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    const Matrix out = attention(part, at, spec, &cache);
    all.insert(all.end(), out.values.begin(), out.values.end());
  }
  std::vector<float> rows(all.begin(), all.begin() + 16);
  rows.insert(rows.end(), all.begin() + 64, all.end());
  return rows;
}

TEST(RefOps, AttentionIsTransformers) {
  const Rope spec{.dims = 4, .inv_freq = {1, 0.1f}};
  expect_near(attended({.heads = 4, .kv_heads = 2, .head_dim = 4, .scale = 0.4f, .rope = &spec}),
              {1.3368056f,  -0.56754827f, -1.2846038f,  1.9270539f,   1.3368056f,    -0.56754827f,
               -1.2846038f, 1.9270539f,   -1.5117354f,  -0.18088841f, -0.17470622f,  -1.5679684f,
               -1.5117354f, -0.18088841f, -0.17470622f, -1.5679684f,  -0.064711556f, -0.64165229f,
               -0.6735248f, -0.56494462f, -0.84195197f, -0.26111364f, -0.53681862f,  -0.67628998f,
               1.1465062f,  -1.1864119f,  0.80958629f,  0.36847633f,  0.93964899f,   -1.0197129f,
               0.6278978f,  0.22830066f});
}

TEST(RefOps, AttentionKnowsWindowSoftcapAndHeadNorms) {
  const Rope spec{.dims = 4, .inv_freq = {1, 0.1f}};
  auto q_norm = TestNumbers(8).floats(4), k_norm = TestNumbers(9).floats(4);
  for (float& v : q_norm) v += 1.5f;
  for (float& v : k_norm) v += 1.5f;
  expect_near(attended({.heads = 4,
                        .kv_heads = 2,
                        .head_dim = 4,
                        .window = 2,
                        .scale = 0.4f,
                        .softcap = 1.5f,
                        .rope = &spec,
                        .q_norm = {NormKind::kRms, 1e-6f, q_norm},
                        .k_norm = {NormKind::kRms, 1e-6f, k_norm}}),
              {1.3368056f,  -0.56754827f, -1.2846038f,  1.9270539f,   1.3368056f,   -0.56754827f,
               -1.2846038f, 1.9270539f,   -1.5117354f,  -0.18088841f, -0.17470622f, -1.5679684f,
               -1.5117354f, -0.18088841f, -0.17470622f, -1.5679684f,  -0.4887839f,  -0.20936137f,
               1.093246f,   1.3730474f,   -0.46707425f, -0.2999f,     1.0845151f,   1.3409922f,
               0.42340457f, -1.6498609f,  1.6103313f,   -1.4551084f,  0.44362688f,  -1.6532551f,
               1.6092277f,  -1.4491462f});
}

TEST(RefOps, LogitsPickRowsAndSoftcap) {
  const Matrix x = made(2, 3, 1), head = made(4, 3, 3);
  const int32_t both[] = {0, 1}, second[] = {1};
  const std::vector<float> want = {0.23640798f,  -0.21251075f, -0.092763893f, -0.083285116f,
                                   -0.38141769f, 0.22916567f,  0.40233746f,   0.43605354f};
  expect_near(logits(x, both, head, 0.5f).values, want);
  expect_near(logits(x, second, head, 0.5f).values, {want.begin() + 4, want.end()});
}

TEST(RefOps, EmbedScalesRows) {
  Matrix table(2, 2);
  table.values = {1, 2, 3, 4};
  const int32_t tokens[] = {1, 0, 1};
  expect_near(embed(table, tokens, 2).values, {6, 8, 2, 4, 6, 8});
}

}  // namespace
}  // namespace llorch::ref
