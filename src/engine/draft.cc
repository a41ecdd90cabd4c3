#include "engine/draft.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

// A longer end is right more often, a shorter one is found more often. With other lengths, or a
// third one, texts are guessed no better.
constexpr int32_t kLongEnd = 3, kShortEnd = 1;
constexpr int32_t kMostAlike = 16;  // more says no more
constexpr float kNew = 0.125f;      // weight of a token in the share of right guesses
// Shares to begin with, seen in prose, the lower ones also in source code.
constexpr std::array<float, 5> kUsual = {0.15f, 0.3f, 0.5f, 0.7f, 0.9f};

}  // namespace

Drafter::LastSeen::LastSeen(int32_t tokens, int32_t limit)
    : tokens_(tokens), places_(std::bit_ceil(static_cast<size_t>(limit))) {}

int32_t Drafter::LastSeen::exchange(std::span<const int32_t> end) {
  uint64_t hash = 0;
  for (const int32_t token : end.last(static_cast<size_t>(tokens_))) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
  }
  return std::exchange(places_[hash & (places_.size() - 1)], static_cast<int32_t>(end.size()));
}

Drafter::Drafter(int32_t limit)
    : long_ends_(kLongEnd, limit), short_ends_(kShortEnd, limit), right_(kUsual) {}

void Drafter::follow(std::span<const int32_t> tokens) {
  CHECK(followed_ <= static_cast<int32_t>(tokens.size()));
  while (followed_ < static_cast<int32_t>(tokens.size())) {
    if (place_ > 0) {
      learn(tokens[static_cast<size_t>(place_)] == tokens[static_cast<size_t>(followed_)]);
    }
    look_up(tokens.first(static_cast<size_t>(++followed_)));
  }
}

void Drafter::learn(bool right) {
  float& share = right_[class_of(alike_)];
  share += kNew * (static_cast<float>(right) - share);
  place_ = right ? place_ + 1 : 0;
  alike_ = right ? std::min(alike_ + 1, kMostAlike) : 0;
}

// Every end is noted. A place with more alike before it than the one that is held on to is better.
void Drafter::look_up(std::span<const int32_t> tokens) {
  for (LastSeen* ends : {&long_ends_, &short_ends_}) {
    if (ends->tokens() > followed_) continue;
    const int32_t place = ends->exchange(tokens);
    if (place == 0 || alike_ >= ends->tokens()) continue;
    const auto before = tokens.first(static_cast<size_t>(place));
    const auto differ = std::mismatch(
        before.rbegin(), before.rend() - std::max(0, place - kMostAlike), tokens.rbegin());
    const auto alike = static_cast<int32_t>(differ.first - before.rbegin());
    if (alike < ends->tokens()) continue;
    place_ = place;
    alike_ = alike;
  }
}

std::optional<Drafter::Guess> Drafter::next(std::span<const int32_t> tokens) const {
  if (place_ == 0) return std::nullopt;
  const int32_t guesses = static_cast<int32_t>(tokens.size()) - followed_;
  return Guess{tokens[static_cast<size_t>(place_ + guesses)],
               static_cast<double>(right_[class_of(alike_ + guesses)])};
}

double Drafter::chance_of_two() const {
  if (place_ == 0) return 0;
  return static_cast<double>(right_[class_of(alike_)]) *
         static_cast<double>(right_[class_of(alike_ + 1)]);
}

size_t Drafter::class_of(int32_t alike) {
  return std::min<size_t>(static_cast<size_t>(std::bit_width(static_cast<uint32_t>(alike))) - 1,
                          kClasses - 1);
}

}  // namespace llorch
