// Sampling against transformers' logits processors, Philox's own vectors and plain statistics.
#include "ops/sampling.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "base/error.h"
#include "gtest/gtest.h"
#include "ops/test_numbers.h"

namespace llorch {
namespace {

constexpr size_t kVocab = 97;

std::vector<float> test_row(uint32_t seed, double scale) {
  return TestNumbers(seed).floats(kVocab, scale / 2);
}

int32_t token_of(std::span<const float> row, const Sampling& sampling) {
  SamplingScratch scratch;
  return sample(row, sampling, scratch).token;
}

TEST(Philox, GivesItsPublishedVectors) {
  using Four = std::array<uint32_t, 4>;
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// What transformers keeps of test_row(seed, scale), and the probabilities of its two likeliest.
struct Case {
  uint32_t seed;
  double scale;
  Sampling sampling;
  size_t kept;
  int32_t sum_of_ids;
  TokenLogprob first, second;  // with the probability in place of its logarithm
};

void check_case(const Case& c) {
  constexpr int kDraws = 20000;
  const auto row = test_row(c.seed, c.scale);
  SamplingScratch scratch;
  std::vector<int> counts(kVocab);
  Sampling sampling = c.sampling;
  for (int i = 0; i < kDraws; ++i) {
    sampling.seed = static_cast<uint64_t>(i) * 77;
    sampling.index = static_cast<uint32_t>(i % 13);
    ++counts[static_cast<size_t>(sample(row, sampling, scratch).token)];
  }
  size_t kept = 0;
  int32_t sum = 0;
  for (size_t id = 0; id < kVocab; ++id) {
    if (counts[id] == 0) continue;
    ++kept;
    sum += static_cast<int32_t>(id);
  }
  EXPECT_EQ(kept, c.kept);
  EXPECT_EQ(sum, c.sum_of_ids);
  for (const TokenLogprob& top : {c.first, c.second}) {
    const double p = static_cast<double>(top.logprob);
    EXPECT_NEAR(counts[static_cast<size_t>(top.token)], kDraws * p,
                5 * std::sqrt(kDraws * p * (1 - p)));
  }
}

TEST(Sampling, KeepsWhatTransformersKeeps) {
  const std::vector<int32_t> a = {3, 7, 7, 50, 96, 0}, b = {1, 2, 3, 4, 5, 5, 5}, d = {10, 20, 30};
  std::vector<int32_t> thirds;
  for (int32_t i = 0; i < 97; i += 3) thirds.push_back(i);
  const Case cases[] = {
      {2, 10, {.temperature = 0.7f, .top_k = 5}, 5, 339, {74, 0.258190567f}, {91, 0.213007329f}},
      {3,
       10,
       {.temperature = 1.3f, .top_p = 0.9f},
       28,
       1337,
       {88, 0.0913727613f},
       {29, 0.0879102123f}},
      {4,
       10,
       {.temperature = 0.9f, .min_p = 0.1f},
       21,
       1231,
       {73, 0.10935729f},
       {83, 0.0855423937f}},
      {5,
       10,
       {.temperature = 0.8f,
        .top_p = 0.8f,
        .min_p = 0.05f,
        .repetition_penalty = 1.3f,
        .top_k = 20,
        .history = a},
       10,
       631,
       {86, 0.13685445f},
       {84, 0.12409467f}},
      {6,
       6,
       {.temperature = 1.5f,
        .top_p = 0.95f,
        .min_p = 0.02f,
        .repetition_penalty = 0.6f,
        .top_k = 40,
        .history = b},
       35,
       1655,
       {2, 0.100970864f},
       {3, 0.0784695051f}},
      {7,
       4,
       {.top_p = 0.5f, .repetition_penalty = 2, .top_k = 60, .history = thirds},
       15,
       644,
       {49, 0.103235067f},
       {10, 0.0939542297f}},
      {8,
       8,
       {.temperature = 0.5f,
        .top_p = 0.3f,
        .min_p = 0.2f,
        .repetition_penalty = 1.1f,
        .history = d},
       3,
       221,
       {93, 0.341328072f},
       {57, 0.333576742f}},
      {9,
       2,
       {.temperature = 2, .top_p = 0.99f, .top_k = 96},
       95,
       4578,
       {77, 0.0164258297f},
       {60, 0.0163918779f}},
      {10, 20, {.top_p = 1e-6f}, 1, 41, {41, 1}, {41, 1}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.seed);
    check_case(c);
  }
}

TEST(Sampling, DrawsEveryTokenAsOftenAsItsProbability) {
  // Chi-square with 19 degrees of freedom: 43.8 is passed once in a thousand.
  constexpr int kDraws = 100000;
  const std::vector<float> row = TestNumbers(21).floats(20, 1.5);
  double total = 0;
  for (const float x : row) total += std::exp(double{x});
  SamplingScratch scratch;
  std::vector<double> counts(row.size());
  for (int i = 0; i < kDraws; ++i) {
    const Sampling sampling{.seed = static_cast<uint64_t>(i / 100),
                            .index = static_cast<uint32_t>(i % 100)};
    ++counts[static_cast<size_t>(sample(row, sampling, scratch).token)];
  }
  double chi_square = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = kDraws * std::exp(double{row[i]}) / total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 43.8);
}

TEST(Sampling, DependsOnSeedAndIndexAlone) {
  const auto row = test_row(1, 6);
  SamplingScratch used;
  sample(test_row(2, 3), {.top_p = 0.4f, .top_k = 9, .seed = 1}, used);
  std::set<int32_t> by_seed, by_index;
  for (uint32_t i = 0; i < 50; ++i) {
    EXPECT_EQ(sample(row, {.seed = 5, .index = i}, used).token,
              token_of(row, {.seed = 5, .index = i}));
    by_seed.insert(token_of(row, {.seed = i, .index = 5}));
    by_index.insert(token_of(row, {.seed = 5, .index = i}));
  }
  EXPECT_GT(by_seed.size(), 10u);
  EXPECT_GT(by_index.size(), 10u);
}

TEST(Sampling, ArgmaxTakesTheLowestIdOnATie) {
  EXPECT_EQ(token_of(std::vector<float>{1, 3, 2, 3}, {.temperature = 0}), 1);
  EXPECT_EQ(token_of(std::vector<float>(40, -2.0f), {.temperature = 0}), 0);
}

TEST(Sampling, PenaltyComesBeforeArgmaxAndCountsATokenOnce) {
  const std::vector<float> row = {4, 3, -1, -1.5f};
  const std::vector<int32_t> thrice = {0, 0, 0}, all = {0, 1, 2, 3};
  EXPECT_EQ(token_of(row, {.temperature = 0, .repetition_penalty = 1.3f, .history = thrice}), 0);
  EXPECT_EQ(token_of(row, {.temperature = 0, .repetition_penalty = 1.4f, .history = thrice}), 1);
  EXPECT_EQ(token_of(row, {.temperature = 0, .repetition_penalty = 0, .history = thrice}), 0);
  EXPECT_EQ(token_of(row, {.temperature = 0, .repetition_penalty = 1e-40f, .history = all}), 0);
}

TEST(Sampling, TopPZeroAndTinyTemperatureKeepTheTopToken) {
  const auto row = test_row(1, 10);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(token_of(row, {.top_p = 0, .seed = seed}), 68);
    EXPECT_EQ(token_of(row, {.temperature = 1e-40f, .seed = seed}), 68);
    EXPECT_EQ(token_of(row, {.temperature = 100, .min_p = 1, .seed = seed}), 68);
    EXPECT_EQ(token_of(row, {.temperature = 100, .top_k = 1, .seed = seed}), 68);
  }
}

TEST(Sampling, GivesLogprobsOfTheRawRow) {
  // torch.log_softmax in double.
  const auto row = test_row(1, 10);
  const std::vector<int32_t> history = {68};
  SamplingScratch scratch;
  const Sampled result = sample(
      row, {.temperature = 0, .repetition_penalty = 1.5f, .history = history, .top_logprobs = 5},
      scratch);
  EXPECT_EQ(result.token, 37);
  EXPECT_NEAR(result.logprob, -2.53565111, 1e-6);
  const TokenLogprob want[] = {{68, -2.50397863f},
                               {37, -2.53565111f},
                               {33, -2.64662876f},
                               {15, -2.67058458f},
                               {41, -2.72912159f}};
  ASSERT_EQ(result.top.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(result.top[i].token, want[i].token);
    EXPECT_NEAR(result.top[i].logprob, want[i].logprob, 1e-6);
  }
  EXPECT_TRUE(sample(row, {.temperature = 0, .top_logprobs = 0}, scratch).top.empty());
}

TEST(Sampling, OrdersTopLogprobsByIdOnATieAndStopsAtTheVocabulary) {
  SamplingScratch scratch;
  const std::vector<float> row = {1, 2, 2, 1, 2};
  const auto two = sample(row, {.temperature = 0, .top_logprobs = 2}, scratch).top;
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0].token, 1);
  EXPECT_EQ(two[1].token, 2);
  const auto all = sample(row, {.temperature = 0, .top_logprobs = 20}, scratch).top;
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[4].token, 3);
}

TEST(Sampling, KeepsTheRawRowIfAsked) {
  const auto row = test_row(1, 10);
  SamplingScratch scratch;
  EXPECT_EQ(sample(row, {.top_k = 3, .keep_logits = true}, scratch).logits, row);
  EXPECT_TRUE(sample(row, {}, scratch).logits.empty());
}

TEST(Sampling, GivesNoTokenForARowThatIsNotFinite) {
  SamplingScratch scratch;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (const float temperature : {0.0f, 1.0f}) {
      auto row = test_row(1, 10);
      row[40] = bad;
      EXPECT_EQ(sample(row, {.temperature = temperature, .top_logprobs = 3}, scratch).token, -1);
    }
  }
}

TEST(Sampling, BearsExtremeRows) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const std::vector<float> wide = {-kMost, kMost, 0, 1};
  EXPECT_EQ(token_of(wide, {.top_p = 0.9f, .top_k = 2, .top_logprobs = 3}), 1);
  const std::vector<float> flat(1000, kMost);
  const int32_t token = token_of(flat, {.top_p = 0.5f, .top_k = 10, .seed = 3});
  EXPECT_GE(token, 0);
  EXPECT_LT(token, 10);
  const std::vector<float> tiny = {0, 1e-45f, 0};
  EXPECT_EQ(token_of(tiny, {.top_k = 1}), 1);
  EXPECT_EQ(token_of(std::vector<float>{7}, {.top_p = 0.5f, .top_k = 3}), 0);
}

TEST(Sampling, CutsALargeVocabularyLikeASmallOne) {
  // Ranks in a row without ties: the k-th largest of a permutation is known.
  std::vector<float> row(128000);
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<float>((i * 7919) % row.size()) / 4000.0f;
  }
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto token =
        static_cast<size_t>(token_of(row, {.temperature = 50, .top_k = 40, .seed = seed}));
    EXPECT_GE((token * 7919) % row.size(), row.size() - 40);
  }
}

}  // namespace
}  // namespace llorch
