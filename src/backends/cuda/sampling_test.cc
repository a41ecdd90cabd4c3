// Sampling on the device against sampling on the host, which has tests of its own.
#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backends/cuda/kernels.h"
#include "backends/cuda/test_arrays.h"
#include "gtest/gtest.h"
#include "ops/test_numbers.h"

namespace llorch::cuda {
namespace {

using Logits = std::vector<float>;

// A row of logits and how it is to be sampled.
struct Wish {
  Logits logits;
  Sampling how;
  std::vector<int32_t> history = {};
};

std::vector<SampledRow> sample_on_device(const Gpu& gpu, const std::vector<Wish>& wishes) {
  const size_t vocab = wishes[0].logits.size(), words = (vocab + 31) / 32;
  Logits logits;
  std::vector<RowSampling> how;
  std::vector<uint32_t> seen;
  for (const Wish& wish : wishes) {
    const Sampling& s = wish.how;
    logits.insert(logits.end(), wish.logits.begin(), wish.logits.end());
    how.push_back({s.temperature, s.top_p, s.min_p, s.repetition_penalty, s.top_k, s.index, s.seed,
                   s.top_logprobs, -1});
    if (wish.history.empty()) continue;
    how.back().seen = static_cast<int32_t>(seen.size() / words);
    seen.resize(seen.size() + words);
    for (const int32_t token : wish.history) {
      seen[seen.size() - words + static_cast<size_t>(token) / 32] |= 1u << (token % 32);
    }
  }
  const auto m = static_cast<int32_t>(wishes.size()), columns = static_cast<int32_t>(vocab);
  const TestArray<float> device_logits(gpu, logits);
  const TestArray<RowSampling> device_how(gpu, how);
  const TestArray<uint32_t> device_seen(gpu, seen);
  const TestArray<std::byte> scratch(gpu, sample_scratch_bytes(m, columns));
  const TestArray<SampledRow> out(gpu, wishes.size());
  sample(gpu, {.logits = device_logits.data(),
               .m = m,
               .vocab = columns,
               .sampling = device_how.data(),
               .seen = device_seen.data(),
               .scratch = scratch.data(),
               .out = out.data()});
  return out.get();
}

Sampled sample_on_host(const Wish& wish) {
  static SamplingScratch scratch;
  Sampling how = wish.how;
  how.history = wish.history;
  return llorch::sample(wish.logits, how, scratch);
}

void expect_as_on_host(const SampledRow& got, const Wish& wish) {
  const Sampled want = sample_on_host(wish);
  ASSERT_EQ(got.token, want.token);
  if (want.token < 0 || wish.how.top_logprobs < 0) {
    ASSERT_EQ(got.logprob, 0);
    return;
  }
  // The sum of the weights is exact to some 1e-9; the rest is rounding.
  const auto near = [](float a, float b) {
    return std::abs(double{a} - double{b}) <= 2 * kTestEpsilon * (1 + std::abs(double{b}));
  };
  ASSERT_PRED2(near, got.logprob, want.logprob);
  for (size_t i = 0; i < want.top.size(); ++i) {
    ASSERT_EQ(got.top_token[i], want.top[i].token) << "place " << i;
    ASSERT_PRED2(near, got.top_logprob[i], want.top[i].logprob) << "place " << i;
  }
}

void expect_all_as_on_host(const std::vector<Wish>& wishes) {
  const Gpu gpu(0);
  const auto got = sample_on_device(gpu, wishes);
  for (size_t i = 0; i < wishes.size(); ++i) {
    const Sampling& s = wishes[i].how;
    SCOPED_TRACE(testing::Message()
                 << "row " << i << ": temperature " << s.temperature << ", top_p " << s.top_p
                 << ", min_p " << s.min_p << ", penalty " << s.repetition_penalty << " of "
                 << wishes[i].history.size() << ", top_k " << s.top_k << ", seed " << s.seed
                 << ", logprobs " << s.top_logprobs);
    expect_as_on_host(got[i], wishes[i]);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Roughly normal, but for a few that are far above: what a model gives.
Logits peaked_row(size_t vocab, uint32_t seed, double deviation = 2.5) {
  TestNumbers numbers(seed);
  Logits row(vocab);
  for (float& v : row) {
    double sum = 0;
    for (int i = 0; i < 6; ++i) sum += numbers.unit() - 0.5;
    v = static_cast<float>(sum * std::sqrt(2.0) * deviation);
  }
  for (int i = 0; i < 40; ++i) {
    row[numbers.bits() % vocab] += static_cast<float>(8 * numbers.unit());
  }
  return row;
}

Sampling random_sampling(TestNumbers& numbers) {
  const auto one_of = [&numbers](std::initializer_list<float> values) {
    return values.begin()[numbers.bits() / 65536 % values.size()];
  };
  Sampling s;
  s.temperature = one_of({0, 0.3f, 0.7f, 1, 1, 1.8f});
  s.top_p = one_of({1, 1, 0.95f, 0.8f, 0.3f, 0.999999f, 0});
  s.min_p = one_of({0, 0, 0, 0.05f, 0.3f, 1e-6f});
  s.repetition_penalty = one_of({1, 1, 0, 1.3f, 0.7f});
  s.top_k = static_cast<int32_t>(one_of({0, 0, 1, 5, 40, 100, 1000, 1e6f}));
  s.top_logprobs = static_cast<int32_t>(one_of({-1, -1, 0, 1, 5, 20}));
  s.seed = uint64_t{numbers.bits()} << 32 | numbers.bits();
  s.index = numbers.bits();
  return s;
}

std::vector<int32_t> random_history(size_t vocab, TestNumbers& numbers) {
  std::vector<int32_t> history(numbers.bits() / 65536 % 60);
  for (int32_t& token : history) token = static_cast<int32_t>(numbers.bits() / 16 % vocab);
  return history;
}

TEST(Sample, AsOnTheHostWhateverIsAsked) {
  for (const size_t vocab : {1u, 2u, 97u, 512u, 1000u, 3001u, 9000u}) {
    SCOPED_TRACE(vocab);
    TestNumbers numbers(static_cast<uint32_t>(vocab));
    std::vector<Wish> wishes;
    for (uint32_t i = 0; i < (vocab < 1000 ? 300u : 100u); ++i) {
      Wish wish{i % 3 == 0 ? numbers.floats(vocab, 2) : peaked_row(vocab, i),
                random_sampling(numbers)};
      wish.history = random_history(vocab, numbers);
      wishes.push_back(std::move(wish));
    }
    expect_all_as_on_host(wishes);
  }
}

TEST(Sample, OfLargeVocabularies) {
  for (const size_t vocab : {50257u, 128256u, 262144u, 600001u}) {
    SCOPED_TRACE(vocab);
    TestNumbers numbers(7);
    std::vector<Wish> wishes;
    for (uint32_t i = 0; i < (vocab > 500000 ? 4u : 12u); ++i) {
      wishes.push_back({peaked_row(vocab, i), random_sampling(numbers)});
      if (i % 4 == 0) wishes.back().history = random_history(vocab, numbers);
    }
    wishes[1].how = {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .seed = 3};
    wishes[2].how = {.seed = 4};
    wishes[3].how = {.top_p = 0.95f, .seed = 5, .top_logprobs = 20};
    expect_all_as_on_host(wishes);
  }
}

// Cuts that fall where no part's list reaches.
TEST(Sample, OfFlatRows) {
  constexpr size_t kVocab = 20000;
  TestNumbers numbers(11);
  std::vector<Wish> wishes;
  for (const double scale : {0.001, 0.1, 1.0, 6.0}) {
    for (uint64_t seed = 0; seed < 2; ++seed) {
      const Logits row = numbers.floats(kVocab, scale);
      wishes.push_back({row, {.temperature = 2, .top_p = 0.97f, .seed = seed}});
      wishes.push_back({row, {.top_p = 0.5f, .min_p = 0.4f, .top_k = 15000, .seed = seed}});
      wishes.push_back({row, {.min_p = 0.2f, .seed = seed, .top_logprobs = 7}});
      wishes.push_back({row, {.top_k = 3000, .seed = seed}});
      wishes.push_back({row, {.seed = seed}});
    }
  }
  expect_all_as_on_host(wishes);
}

TEST(Sample, TiesGoToTheLowestTokens) {
  constexpr size_t kVocab = 9001;
  TestNumbers numbers(13);
  std::vector<Wish> wishes;
  for (const uint32_t levels : {1u, 2u, 5u, 300u}) {
    Logits row(kVocab);
    for (float& v : row) v = static_cast<float>(numbers.bits() / 65536 % levels) / 16 - 1;
    for (uint64_t seed = 0; seed < 3; ++seed) {
      wishes.push_back({row, {.temperature = 0, .top_logprobs = 20}});
      wishes.push_back({row, {.top_k = 70, .seed = seed, .top_logprobs = 3}});
      wishes.push_back({row, {.top_k = 4000, .seed = seed}});
      wishes.push_back({row, {.top_p = 0.31f, .seed = seed}});
      wishes.push_back({row, {.top_p = 0.9f, .top_k = 11, .seed = seed}});
    }
  }
  // Zeros of both signs are equal.
  Logits zeros(kVocab, -1);
  zeros[5000] = 0.0f;
  zeros[4000] = zeros[7000] = -0.0f;
  wishes.push_back({zeros, {.temperature = 0, .top_logprobs = 4}});
  wishes.push_back({zeros, {.top_k = 1}});
  wishes.push_back({zeros, {.top_k = 2, .seed = 1}});
  expect_all_as_on_host(wishes);
}

TEST(Sample, PenaltyComesFirstAndCountsATokenOnce) {
  const Logits row = {4, 3, -1, -1.5f};
  const std::vector<int32_t> thrice = {0, 0, 0}, all = {0, 1, 2, 3};
  expect_all_as_on_host({{row, {.temperature = 0, .repetition_penalty = 1.3f}, thrice},
                         {row, {.temperature = 0, .repetition_penalty = 1.4f}, thrice},
                         {row, {.temperature = 0, .repetition_penalty = 0}, thrice},
                         {row, {.temperature = 0, .repetition_penalty = 1e-40f}, all},
                         {row, {.temperature = 0, .repetition_penalty = 1.5f}, {}},
                         {row, {.repetition_penalty = 2, .top_k = 1, .top_logprobs = 2}, thrice}});
}

TEST(Sample, BearsExtremeRows) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const Logits wide = {-kMost, kMost, 0, 1};
  const Logits flat(1000, kMost), low(1000, -kMost);
  const Logits tiny = {0, 1e-45f, 0};
  expect_all_as_on_host({{wide, {.top_p = 0.9f, .top_k = 2, .top_logprobs = 3}},
                         {wide, {.seed = 9, .top_logprobs = 0}},
                         {wide, {.temperature = 0, .repetition_penalty = 0.5f}, {0, 1}}});
  expect_all_as_on_host({{flat, {.top_p = 0.5f, .top_k = 10, .seed = 3}},
                         {flat, {.seed = 5}},
                         {low, {.min_p = 0.5f, .seed = 5, .top_logprobs = 4}}});
  expect_all_as_on_host({{tiny, {.top_k = 1}}, {tiny, {.temperature = 1e-40f}}});
  expect_all_as_on_host({{{7}, {.top_p = 0.5f, .top_k = 3, .top_logprobs = 20}}});
  const Logits peaked = peaked_row(3000, 1);
  expect_all_as_on_host({{peaked, {.temperature = 1e-40f, .seed = 1}},
                         {peaked, {.top_p = 0, .seed = 2}},
                         {peaked, {.temperature = 100, .min_p = 1, .seed = 3}},
                         {peaked, {.temperature = 1e30f, .seed = 4}},
                         {peaked, {.temperature = 1e30f, .top_p = 0.7f, .seed = 5}}});
}

TEST(Sample, GivesNoTokenForARowThatIsNotFinite) {
  constexpr size_t kVocab = 9000;
  std::vector<Wish> wishes;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const size_t at : {size_t{0}, size_t{4567}, kVocab - 1}) {
      for (const float temperature : {0.0f, 1.0f}) {
        Wish wish{peaked_row(kVocab, 1), {.temperature = temperature, .top_k = 5}, {3}};
        wish.logits[at] = bad;
        wish.how.top_logprobs = temperature > 0 ? 3 : -1;
        wishes.push_back(std::move(wish));
      }
    }
  }
  wishes.push_back({peaked_row(kVocab, 1), {.temperature = 0}});  // whose neighbours do not matter
  for (size_t i = 0; i + 1 < wishes.size(); ++i) {
    ASSERT_EQ(sample_on_host(wishes[i]).token, -1);
  }
  expect_all_as_on_host(wishes);
}

// Every token at its share, as far as the host's draws have it: cuts and draws of one distribution.
TEST(Sample, DrawsAsTheHostDoesManyTimes) {
  const Logits row = peaked_row(300, 21, 1);
  std::vector<Wish> wishes;
  for (uint32_t i = 0; i < 1500; ++i) {
    wishes.push_back({row, {.temperature = i % 2 ? 1.0f : 0.6f, .seed = i / 10, .index = i % 10}});
    if (i % 3 == 1) wishes.back().how.top_p = 0.9f;
    if (i % 3 == 2) wishes.back().how.top_k = 50;
  }
  expect_all_as_on_host(wishes);
}

std::vector<uint32_t> bits_of_row(const SampledRow& row, int32_t tops) {
  std::vector<uint32_t> bits = {static_cast<uint32_t>(row.token)};
  std::vector<float> values = {row.logprob};
  for (int32_t i = 0; i < tops; ++i) {
    bits.push_back(static_cast<uint32_t>(row.top_token[i]));
    values.push_back(row.top_logprob[i]);
  }
  const auto more = bits_of_all(values);
  bits.insert(bits.end(), more.begin(), more.end());
  return bits;
}

TEST(Sample, GivesARowOneAnswer) {
  const Gpu gpu(0);
  for (const size_t vocab : {777u, 20011u}) {
    TestNumbers numbers(17);
    std::vector<Wish> wishes;
    for (uint32_t i = 0; i < 9; ++i) {
      wishes.push_back({i % 2 ? peaked_row(vocab, i) : numbers.floats(vocab),
                        random_sampling(numbers), random_history(vocab, numbers)});
      wishes.back().how.top_logprobs = static_cast<int32_t>(i * 2);
    }
    const auto together = sample_on_device(gpu, wishes);
    auto reversed_wishes = wishes;
    std::reverse(reversed_wishes.begin(), reversed_wishes.end());
    auto reversed = sample_on_device(gpu, reversed_wishes);
    std::reverse(reversed.begin(), reversed.end());
    for (size_t i = 0; i < wishes.size(); ++i) {
      const auto alone = sample_on_device(gpu, {wishes[i]});
      const int32_t tops = wishes[i].how.top_logprobs;
      EXPECT_EQ(bits_of_row(together[i], tops), bits_of_row(alone[0], tops));
      EXPECT_EQ(bits_of_row(reversed[i], tops), bits_of_row(alone[0], tops));
    }
  }
}

}  // namespace
}  // namespace llorch::cuda
