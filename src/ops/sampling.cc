// Sampling without sorting: every filter is a cut in the order (logit descending, id ascending),
// found by a histogram and a sort of the one bucket the cut falls into. Knows no device.
#include "ops/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

constexpr int kBuckets = 1024;
// Logits further than this below the top share the last bucket: they hardly ever matter.
constexpr float kBucketRange = 40;

// The last token that is kept: those before it in the order (logit descending, id ascending).
struct Cut {
  float logit = -std::numeric_limits<float>::infinity();
  int32_t token = std::numeric_limits<int32_t>::max();

  bool keeps(float other, int32_t id) const {
    return other > logit || (other == logit && id <= token);
  }
};

struct Range {
  float low = 0, high = 0;
};

// None if the row has a NaN or infinity.
std::optional<Range> finite_range(std::span<const float> row) {
  Range range{row[0], row[0]};
  uint32_t bad = 0;
  for (const float x : row) {
    bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(x) & 0x7f800000u) == 0x7f800000u);
    range.low = x < range.low ? x : range.low;
    range.high = x > range.high ? x : range.high;
  }
  if (bad) return std::nullopt;
  return range;
}

// Monotone in the logit: a lower one never has a lower bucket.
class Buckets {
 public:
  explicit Buckets(Range range)
      : high_(range.high),
        scale_(range.high > range.low
                   ? (kBuckets - 1) / std::min(range.high - range.low, kBucketRange)
                   : 0.0f) {
    scale_ = std::min(scale_, std::numeric_limits<float>::max());
  }
  int of(float logit) const {
    return static_cast<int>(std::min((high_ - logit) * scale_, static_cast<float>(kBuckets - 1)));
  }

 private:
  float high_, scale_;
};

// Fills `found` with the tokens of one bucket in order.
void gather_bucket(std::span<const float> row, const Buckets& buckets, int bucket,
                   const Cut& within, std::vector<int32_t>* found) {
  found->clear();
  for (size_t i = 0; i < row.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (buckets.of(row[i]) == bucket && within.keeps(row[i], id)) found->push_back(id);
  }
  std::sort(found->begin(), found->end(), [row](int32_t a, int32_t b) {
    const float x = row[static_cast<size_t>(a)], y = row[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  });
}

// The cut that keeps the `count` first tokens, 1 <= count <= V.
Cut cut_by_count(std::span<const float> row, Range range, size_t count,
                 std::vector<int32_t>* candidates) {
  const Buckets buckets(range);
  std::array<uint32_t, kBuckets> sizes{};
  for (const float x : row) ++sizes[static_cast<size_t>(buckets.of(x))];
  size_t before = 0;
  int bucket = 0;
  while (before + sizes[static_cast<size_t>(bucket)] < count) {
    before += sizes[static_cast<size_t>(bucket++)];
  }
  gather_bucket(row, buckets, bucket, Cut{}, candidates);
  const int32_t last = (*candidates)[count - before - 1];
  return {row[static_cast<size_t>(last)], last};
}

// The cut that keeps the fewest tokens of `within` whose weights sum to at least p of theirs all.
Cut cut_by_mass(std::span<const float> row, std::span<const float> weights, Range range, float p,
                const Cut& within, std::vector<int32_t>* candidates) {
  const Buckets buckets(range);
  std::array<double, kBuckets> mass{};
  for (size_t i = 0; i < row.size(); ++i) {
    mass[static_cast<size_t>(buckets.of(row[i]))] += static_cast<double>(weights[i]);
  }
  double total = 0;
  for (const double m : mass) total += m;
  const double wanted = static_cast<double>(p) * total;
  double sum = 0;
  int bucket = 0;
  while (bucket + 1 < kBuckets && sum + mass[static_cast<size_t>(bucket)] < wanted) {
    sum += mass[static_cast<size_t>(bucket++)];
  }
  gather_bucket(row, buckets, bucket, within, candidates);
  // Empty only where rounding of the sums leaves the cut past the last token: then all stay.
  if (candidates->empty()) return within;
  int32_t last = candidates->front();
  for (const int32_t id : *candidates) {
    last = id;
    sum += static_cast<double>(weights[static_cast<size_t>(id)]);
    if (sum >= wanted) break;
  }
  return {row[static_cast<size_t>(last)], last};
}

void apply_penalty(const Sampling& sampling, SamplingScratch& scratch) {
  const float penalty = sampling.repetition_penalty;
  std::fill(scratch.seen.begin(), scratch.seen.end(), 0);
  for (const int32_t token : sampling.history) {
    if (token < 0 || static_cast<size_t>(token) >= scratch.row.size()) {
      throw Error(ErrorCode::kInternal, "[sampling] history token " + std::to_string(token) +
                                            " of a vocabulary of " +
                                            std::to_string(scratch.row.size()));
    }
    const auto id = static_cast<size_t>(token);
    uint64_t& word = scratch.seen[id / 64];
    const uint64_t bit = uint64_t{1} << (id % 64);
    if (word & bit) continue;
    word |= bit;
    const float logit = scratch.row[id];
    // A tiny penalty may overflow; an order among the overflowed would not mean anything.
    constexpr float kMost = std::numeric_limits<float>::max();
    scratch.row[id] = std::clamp(logit < 0 ? logit * penalty : logit / penalty, -kMost, kMost);
  }
}

int32_t argmax(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

int32_t draw(const Sampling& sampling, SamplingScratch& scratch) {
  const std::span<const float> row = scratch.row;
  const Range range = *finite_range(row);  // the penalty keeps it finite
  const size_t vocab = row.size();
  Cut cut;
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < vocab) {
    cut = cut_by_count(row, range, static_cast<size_t>(sampling.top_k), &scratch.candidates);
  }
  for (size_t i = 0; i < vocab; ++i) {
    const bool kept = cut.keeps(row[i], static_cast<int32_t>(i));
    // The difference first: neither a tiny temperature nor huge logits give inf - inf.
    scratch.weights[i] = kept ? std::exp((row[i] - range.high) / sampling.temperature) : 0.0f;
  }
  if (sampling.top_p < 1) {
    cut = cut_by_mass(row, scratch.weights, range, sampling.top_p, cut, &scratch.candidates);
  }
  // The top token's weight is 1, so min-p compares with weights as they are.
  double total = 0;
  for (size_t i = 0; i < vocab; ++i) {
    if (!cut.keeps(row[i], static_cast<int32_t>(i)) || scratch.weights[i] < sampling.min_p) {
      scratch.weights[i] = 0;
    }
    total += static_cast<double>(scratch.weights[i]);
  }
  const double target = uniform_draw(sampling.seed, sampling.index) * total;
  double sum = 0;
  int32_t last = 0;
  for (size_t i = 0; i < vocab; ++i) {
    if (scratch.weights[i] == 0) continue;
    last = static_cast<int32_t>(i);
    sum += static_cast<double>(scratch.weights[i]);
    if (sum > target) break;
  }
  return last;
}

void fill_logprobs(std::span<const float> logits, Range range, const Sampling& sampling,
                   SamplingScratch& scratch, Sampled* result) {
  double sum = 0;
  for (const float x : logits) sum += static_cast<double>(std::exp(x - range.high));
  const double log_sum = std::log(sum) + static_cast<double>(range.high);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - log_sum);
  };
  result->logprob = logprob(result->token);
  if (sampling.top_logprobs == 0) return;
  const size_t count = std::min(static_cast<size_t>(sampling.top_logprobs), logits.size());
  const Cut cut = cut_by_count(logits, range, count, &scratch.candidates);
  result->top.reserve(count);
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (cut.keeps(logits[i], id)) result->top.push_back({id, logits[i]});
  }
  // By logit, not by logprob: rounding may make two logprobs equal that are not.
  std::sort(result->top.begin(), result->top.end(),
            [](const TokenLogprob& a, const TokenLogprob& b) {
              return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
            });
  for (TokenLogprob& entry : result->top) entry.logprob = logprob(entry.token);
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

double uniform_draw(uint64_t seed, uint32_t index) {
  const auto words = philox4x32({index, 0, 0, 0},
                                {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

void SamplingScratch::reserve(size_t vocab) {
  if (row.size() >= vocab && candidates.capacity() >= vocab) return;
  row.resize(vocab);
  weights.resize(vocab);
  seen.resize((vocab + 63) / 64);
  candidates.resize(vocab);  // written, so that the memory is there
  candidates.clear();
}

Sampled sample(std::span<const float> logits, const Sampling& sampling, SamplingScratch& scratch) {
  CHECK(!logits.empty());
  const std::optional<Range> range = finite_range(logits);
  Sampled result;
  if (!range) {
    result.token = -1;
    return result;
  }
  const bool penalised = sampling.repetition_penalty != 0 && sampling.repetition_penalty != 1 &&
                         !sampling.history.empty();
  if (sampling.temperature <= 0 && !penalised) {
    result.token = argmax(logits);
  } else {
    scratch.reserve(logits.size());
    scratch.row.assign(logits.begin(), logits.end());
    scratch.weights.resize(logits.size());
    if (penalised) apply_penalty(sampling, scratch);
    result.token = sampling.temperature <= 0 ? argmax(scratch.row) : draw(sampling, scratch);
  }
  if (sampling.top_logprobs >= 0) fill_logprobs(logits, *range, sampling, scratch, &result);
  if (sampling.keep_logits) result.logits.assign(logits.begin(), logits.end());
  return result;
}

}  // namespace llorch
