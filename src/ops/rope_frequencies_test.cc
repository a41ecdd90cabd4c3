// Expected values: ROPE_INIT_FUNCTIONS["dynamic"] of transformers 5.23 on torch.float32.
#include "ops/rope_frequencies.h"

#include <vector>

#include "gtest/gtest.h"

namespace llorch {
namespace {

std::vector<float> frequencies(const Rope& rope, int32_t length) {
  std::vector<float> scratch(static_cast<size_t>(rope.dims / 2));
  const auto result = rope_frequencies(rope, length, scratch);
  return {result.begin(), result.end()};
}

TEST(RopeFrequencies, AreThePlainOnesUpToTheTrainedLength) {
  Rope rope{.dims = 4, .inv_freq = {1, 0.5f}};
  EXPECT_EQ(frequencies(rope, 1 << 30), rope.inv_freq);
  rope.trained = 8;
  rope.long_inv_freq = {3, 4};
  EXPECT_EQ(frequencies(rope, 8), rope.inv_freq);
  EXPECT_EQ(frequencies(rope, 9), rope.long_inv_freq);
}

TEST(RopeFrequencies, OfDynamicNtkAreTheReferences) {
  const struct {
    Rope rope;
    int32_t length;
    std::vector<float> want;
  } cases[] = {
      {{.dims = 8, .trained = 64, .theta = 10000, .ntk_factor = 2},
       65,
       {1, 0.0989795253f, 0.00979694631f, 0.000969696965f}},
      {{.dims = 8, .trained = 64, .theta = 10000, .ntk_factor = 2},
       100,
       {1, 0.0777822211f, 0.00605007401f, 0.000470588246f}},
      {{.dims = 8, .trained = 64, .theta = 10000, .ntk_factor = 2},
       4096,
       {1, 0.0198944584f, 0.000395789451f, 7.87401586e-06f}},
      {{.dims = 12, .trained = 2048, .theta = 500000, .ntk_factor = 3.3},
       2049,
       {1, 0.112210065f, 0.0125910975f, 0.00141284813f, 0.000158535753f, 1.77893162e-05f}},
      {{.dims = 12, .trained = 2048, .theta = 500000, .ntk_factor = 3.3},
       70000,
       {1, 0.0438030846f, 0.0019187103f, 8.40454522e-05f, 3.68144879e-06f, 1.61258953e-07f}},
  };
  for (const auto& c : cases) {
    const auto got = frequencies(c.rope, c.length);
    ASSERT_EQ(got.size(), c.want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_FLOAT_EQ(got[i], c.want[i]) << c.length << ", pair " << i;
    }
  }
}

}  // namespace
}  // namespace llorch
