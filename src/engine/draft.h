// Guesses how a sequence goes on, from its own tokens: as it went on the last time that it was at
// such a point. Knows no model, no step and no policy.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace llorch {

// Follows the tokens of one sequence. It holds on to the place that the sequence goes on like, and
// learns from every token how often that place is right, whether anybody asked for a guess or not.
// So it costs the same for each token, however many there are, and trying is not needed to know.
class Drafter {
 public:
  // Of a sequence of at most `limit` tokens: all memory is taken here.
  explicit Drafter(int32_t limit);

  // Takes what is new of `tokens`, which begin as they did in the last call.
  void follow(std::span<const int32_t> tokens);

  struct Guess {
    int32_t token = 0;
    double chance = 0;  // that it is right, if what comes before it is
  };
  // What may come after `tokens`: those that it has followed, and guesses behind them. None if the
  // sequence has not been at such a point, or has never been right there.
  std::optional<Guess> next(std::span<const int32_t> tokens) const;
  // That the two tokens after those that it has followed are as it would guess.
  double chance_of_two() const;

 private:
  // Where an end of so many tokens was seen last. A newer one takes the place of an older one, also
  // of another with the same hash: what is found is compared.
  class LastSeen {
   public:
    LastSeen(int32_t tokens, int32_t limit);
    // The place after the last such end, and from now on the place after this one; 0: none.
    int32_t exchange(std::span<const int32_t> end);
    int32_t tokens() const { return tokens_; }

   private:
    const int32_t tokens_;
    std::vector<int32_t> places_;
  };

  void learn(bool right);
  void look_up(std::span<const int32_t> tokens);

  LastSeen long_ends_, short_ends_;
  int32_t followed_ = 0;
  int32_t place_ = 0;  // the next token is likely to be the one there; 0: nothing is known
  int32_t alike_ = 0;  // tokens before place_ that are as the last ones
  // By how many tokens are alike: the share of right guesses, the newer the more it counts.
  static constexpr size_t kClasses = 5;
  static size_t class_of(int32_t alike);
  std::array<float, kClasses> right_;
};

}  // namespace llorch
