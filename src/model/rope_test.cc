#include "model/rope.h"

#include <cmath>
#include <string>
#include <vector>

#include "formats/testing.h"

namespace llorch {
namespace {

using testing::expect_error;

Rope rope(const std::string& keys, int head_dim = 24, int context = 2048) {
  return read_rope(JsonReader::parse("{" + keys + "}", "config.json"),
                   {.head_dim = head_dim, .context = context}, &context);
}

// Expected values: LlamaRotaryEmbedding of transformers 5.23, head_dim 24, printed with %.9g.
// The two powf differ by at most a few units in the last place.
void expect_frequencies(const std::vector<float>& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(got[i], wanted[i], 2.5e-7 * wanted[i]) << "pair " << i;
  }
}

void expect_rope(const Rope& got, float factor, const std::vector<float>& inv_freq) {
  EXPECT_EQ(got.dims, 24);
  EXPECT_FALSE(got.interleaved);
  EXPECT_FLOAT_EQ(got.factor, factor);
  expect_frequencies(got.inv_freq, inv_freq);
}

// What a scaling makes of max_position_embeddings.
int context_of(const std::string& keys, int context) {
  const auto config = JsonReader::parse("{" + keys + "}", "config.json");
  read_rope(config, {.head_dim = 24, .context = context}, &context);
  return context;
}

Rope phi3_rope(const std::string& keys, int head_dim = 16) {
  int context = 2048;
  return read_rope(
      JsonReader::parse("{" + keys + "}", "config.json"),
      {.head_dim = head_dim, .context = context, .may_be_partial = true, .longrope = true},
      &context);
}

const std::vector<float> kDefault = {1.0f,           0.464158893f,    0.215443447f,
                                     0.100000001f,   0.046415884f,    0.0215443484f,
                                     0.00999999978f, 0.00464158971f,  0.00215443433f,
                                     0.00100000005f, 0.000464158948f, 0.000215443419f};

TEST(Rope, DefaultsToTenThousandWithoutScaling) {
  expect_rope(rope(""), 1, kDefault);
  expect_rope(rope(R"("rope_scaling": null, "rope_theta": 10000)"), 1, kDefault);
  expect_rope(rope(R"("rope_scaling": {}, "rope_parameters": {"rope_type": "default"})"), 1,
              kDefault);
}

TEST(Rope, ReadsThetaFromTheNewAndTheOldKey) {
  const std::vector<float> million = {1.0f,
                                      0.316227764f,
                                      0.099999994f,
                                      0.0316227786f,
                                      0.00999999885f,
                                      0.0031622781f,
                                      0.00100000005f,
                                      0.000316227844f,
                                      9.99999684e-05f,
                                      3.16227743e-05f,
                                      1.00000034e-05f,
                                      3.16227693e-06f};
  expect_rope(rope(R"("rope_theta": 1e6)"), 1, million);
  expect_rope(rope(R"("rope_parameters": {"rope_theta": 1e6, "rope_type": "default"})"), 1,
              million);
  expect_rope(rope(R"("rope_theta": 10, "rope_parameters": {"rope_theta": 1000000})"), 1, million);
}

TEST(Rope, ScalesLinearly) {
  const std::vector<float> third = {0.333333343f,    0.154719636f,    0.0718144849f,
                                    0.0333333351f,   0.0154719613f,   0.00718144933f,
                                    0.00333333318f,  0.00154719653f,  0.000718144758f,
                                    0.000333333359f, 0.000154719644f, 7.18144729e-05f};
  expect_rope(rope(R"("rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 3.0})"),
              1, third);
  expect_rope(rope(R"("rope_parameters": {"rope_type": "linear", "factor": 3})"), 1, third);
}

TEST(Rope, ScalesAsLlama3) {
  const std::vector<float> wanted = {1.0f,
                                     0.335031629f,
                                     0.112246193f,
                                     0.0376060307f,
                                     0.0125992084f,
                                     0.00422113482f,
                                     0.000524846022f,
                                     5.92258002e-05f,
                                     1.98425078e-05f,
                                     6.64786967e-06f,
                                     2.22724748e-06f,
                                     7.46197941e-07f};
  const std::string factors = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,)"
                              R"("original_max_position_embeddings": 8192)";
  expect_rope(
      rope(R"("rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3",)" + factors + "}", 24,
           131072),
      1, wanted);
  expect_rope(
      rope(R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0,)" + factors + "}",
           24, 131072),
      1, wanted);
}

TEST(Rope, ScalesAsYarn) {
  const std::vector<float> wanted = {1.0f,
                                     0.464158893f,
                                     0.215443447f,
                                     0.100000001f,
                                     0.0406138971f,
                                     0.0161582604f,
                                     0.00624999963f,
                                     0.00232079485f,
                                     0.000807912904f,
                                     0.000250000012f,
                                     0.000116039737f,
                                     5.38608547e-05f};
  const std::string keys =
      R"("rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096)";
  expect_rope(rope(R"("rope_parameters": {)" + keys + "}", 24, 16384), 1.13862943649292f, wanted);
  expect_rope(rope(R"("rope_parameters": {"attention_factor": 0.75,)" + keys + "}", 24, 16384),
              0.75f, wanted);
  expect_rope(rope(R"("original_max_position_embeddings": 4096, "rope_parameters": {
                     "rope_type": "yarn", "factor": null,
                     "original_max_position_embeddings": 1})",
                   24, 16384),
              1.13862943649292f, wanted);
  expect_rope(
      rope(R"("rope_parameters": {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 40.0,
              "original_max_position_embeddings": 4096, "beta_fast": 16, "beta_slow": 2,
              "mscale": 1.0, "mscale_all_dim": 0.707, "truncate": false})",
           24, 16384),
      1.0857263803482056f,
      {1.0f, 0.316227764f, 0.099999994f, 0.0316227786f, 0.00579010416f, 0.000123952457f,
       2.49999994e-05f, 7.90569629e-06f, 2.49999925e-06f, 7.90569402e-07f, 2.50000085e-07f,
       7.90569175e-08f});
}

TEST(Rope, KeepsWhatDynamicScalingNeedsOfALength) {
  const Rope got = rope(R"("rope_theta": 10000, "rope_scaling": {"type": "dynamic", "factor": 4})");
  expect_rope(got, 1, kDefault);
  EXPECT_EQ(got.trained, 2048);
  EXPECT_EQ(got.theta, 10000);
  EXPECT_EQ(got.ntk_factor, 4);
}

TEST(Rope, ExtendsTheContext) {
  const std::string dynamic = R"("rope_scaling": {"type": "dynamic", "factor": 2.5})";
  const std::string yarn = R"("rope_parameters": {"rope_type": "yarn", "factor": 4,
                              "original_max_position_embeddings": 1000})";
  EXPECT_EQ(context_of("", 2048), 2048);
  EXPECT_EQ(context_of(R"("rope_scaling": {"type": "linear", "factor": 3})", 2048), 6144);
  EXPECT_EQ(context_of(dynamic, 1001), 2502);
  EXPECT_EQ(context_of(yarn, 1000), 4000);
  EXPECT_EQ(context_of(yarn, 8000), 8000);
  EXPECT_EQ(context_of(R"("rope_scaling": {"type": "linear", "factor": 1e6})", 1 << 28), 1 << 28);
}

// Expected values: Phi3RotaryEmbedding, head_dim 16 of which 12 turn.
TEST(Rope, ScalesAsLongrope) {
  const std::string factors = R"("short_factor": [1, 1.1, 1.2, 1.3, 1.4, 1.5],
                                 "long_factor": [1.5, 2, 3, 4, 6, 9])";
  const std::vector<float> short_freq = {1.0f,          0.195857689f,   0.0386799015f,
                                         0.0076923077f, 0.00153888157f, 0.000309439318f};
  const std::vector<float> long_freq = {0.666666687f,   0.107721724f,    0.0154719604f,
                                        0.00249999994f, 0.000359072379f, 5.15732208e-05f};
  const auto expect_all = [&](const Rope& got, float factor) {
    EXPECT_EQ(got.dims, 12);
    EXPECT_EQ(got.trained, 512);
    EXPECT_FLOAT_EQ(got.factor, factor);
    expect_frequencies(got.inv_freq, short_freq);
    expect_frequencies(got.long_inv_freq, long_freq);
  };
  // The top-level length goes before the one beside the factors.
  const std::string trained = R"("original_max_position_embeddings": 512,)";
  for (const std::string type : {"longrope", "su", "yarn"}) {
    expect_all(phi3_rope(trained + R"("partial_rotary_factor": 0.75, "rope_scaling": {"type": ")" +
                         type + R"(", "original_max_position_embeddings": 7,)" + factors + "}"),
               1.1055415967851334f);
  }
  expect_all(phi3_rope(trained + R"("rope_parameters": {"rope_type": "longrope",
                       "partial_rotary_factor": 0.75, "attention_factor": 1.5,)" +
                       factors + "}"),
             1.5f);
  EXPECT_EQ(
      phi3_rope(R"("partial_rotary_factor": 0.75, "rope_scaling": {"type": "su",)" + factors + "}")
          .trained,
      4096);
  expect_error(ErrorCode::kCorruptFile, {"rope_scaling.short_factor: has 6 factors for 8 pairs"},
               [&] { phi3_rope(R"("rope_scaling": {"type": "su",)" + factors + "}"); });
  expect_error(ErrorCode::kUnsupported, {"rope_scaling.rope_type: 'linear' is not supported"},
               [&] { phi3_rope(R"("rope_scaling": {"type": "linear", "factor": 2})"); });
}

TEST(Rope, RoundsPhi3sOddPartUp) {
  const Rope got = phi3_rope(R"("partial_rotary_factor": 0.75)", 12);  // 9 dimensions
  EXPECT_EQ(got.dims, 10);
  expect_frequencies(got.inv_freq,
                     {1.0f, 0.129154965f, 0.0166810062f, 0.00215443433f, 0.000278255931f});
}

// Expected values: Gemma3RotaryEmbedding, head_dim 12.
TEST(Rope, ReadsGemma3sTwo) {
  const std::vector<float> full = {0.125f,          0.0124999993f,  0.00124999986f,
                                   0.000125000006f, 1.2499996e-05f, 1.25000042e-06f};
  const std::vector<float> sliding = {1.0f,           0.215443447f,   0.046415884f,
                                      0.00999999978f, 0.00215443433f, 0.000464158948f};
  const auto expect_both = [&](const std::string& keys) {
    const LayerRopes got = read_layer_ropes(JsonReader::parse("{" + keys + "}", "config.json"),
                                            {.head_dim = 12, .context = 2048, .theta = 1e6});
    expect_frequencies(got.full.inv_freq, full);
    expect_frequencies(got.sliding.inv_freq, sliding);
  };
  expect_both(R"("rope_scaling": {"rope_type": "linear", "factor": 8})");
  expect_both(R"("rope_theta": 1e6, "rope_local_base_freq": 1e4,
                 "rope_scaling": {"rope_type": "linear", "factor": 8})");
  expect_both(R"("rope_theta": 5, "rope_local_base_freq": 5, "rope_parameters": {
                 "full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 1e6},
                 "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})");
  expect_error(ErrorCode::kUnsupported, {"rope_parameters.rope_theta: "},
               [&] { expect_both(R"("rope_parameters": {"rope_theta": 1e6})"); });
}

TEST(Rope, RefusesByNameWhatItHasNotGot) {
  const auto unsupported = [](const std::string& keys, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::kUnsupported, parts, [&] { rope(keys); });
  };
  for (const std::string type : {"longrope", "proportional", "mrope"}) {
    unsupported(R"("rope_scaling": {"factor": 2, "type": ")" + type + "\"}",
                {"config.json: rope_scaling.rope_type: '" + type + "' is not supported"});
  }
  unsupported(R"("rope_parameters": {"full_attention": {"rope_type": "default"}})",
              {"config.json: rope_parameters.full_attention: "});
  unsupported(R"("partial_rotary_factor": 0.5)", {"config.json: partial_rotary_factor: "});
  unsupported(R"("rope_parameters": {"partial_rotary_factor": 0.5})",
              {"rope_parameters.partial_rotary_factor: "});
}

TEST(Rope, RefusesNumbersThatCannotBe) {
  const auto corrupt = [](const std::string& keys, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::kCorruptFile, parts, [&] { rope(keys); });
  };
  corrupt(R"("rope_theta": 0)", {"config.json: rope_theta: must be a number from"});
  corrupt(R"("rope_theta": "10000")", {"config.json: rope_theta: must be a number"});
  corrupt(R"("rope_theta": true)", {"config.json: rope_theta: must be a number"});
  corrupt(R"("rope_parameters": 4)", {"config.json: rope_parameters: must be an object"});
  corrupt(R"("rope_scaling": {"type": 4})", {"rope_scaling.type: must be a string"});
  corrupt(R"("rope_scaling": {"type": "dynamic"})", {"rope_scaling.factor: is missing"});
  corrupt(R"("rope_scaling": {"type": "linear"})", {"rope_scaling.factor: is missing"});
  corrupt(R"("rope_scaling": {"type": "linear", "factor": 0})", {"rope_scaling.factor: must be"});
  corrupt(R"("rope_scaling": {"type": "llama3", "factor": 2, "low_freq_factor": 4,
                              "high_freq_factor": 4})",
          {"rope_scaling.high_freq_factor: must be above low_freq_factor"});
  corrupt(R"("rope_scaling": {"type": "yarn", "factor": 2,
                              "original_max_position_embeddings": 0})",
          {"original_max_position_embeddings: must be an integer from 1"});
}

TEST(Rope, GivesFiniteNumbersAtTheEdgesOfWhatItAccepts) {
  for (const std::string theta : {"1", "1e15"}) {
    for (const std::string type : {"default", "linear", "dynamic", "llama3", "yarn"}) {
      const std::string keys =
          R"("rope_parameters": {"rope_theta": )" + theta + R"(, "rope_type": ")" + type +
          R"(", "factor": 1e6, "low_freq_factor": 1e-6, "high_freq_factor": 1e6})";
      try {
        for (const float value : rope(keys, 4096, 1 << 28).inv_freq) {
          EXPECT_TRUE(std::isfinite(value) && value > 0) << keys;
        }
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kCorruptFile) << e.what();
      }
    }
  }
}

}  // namespace
}  // namespace llorch
