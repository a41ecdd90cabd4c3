#include "load/workload.h"

#include <array>

#include "load/words.h"

namespace llorch::bench {
namespace {

constexpr std::array kEnglish = {
    " the",  " of",   " and",   " to",   " in",   " is",    " that",  " for",   " it",    " was",
    " on",   " are",  " with",  " as",   " they", " be",    " at",    " one",   " have",  " this",
    " from", " or",   " had",   " by",   " hot",  " but",   " some",  " what",  " there", " we",
    " can",  " out",  " other", " were", " all",  " your",  " when",  " up",    " use",   " word",
    " how",  " said", " an",    " each", " she",  " which", " do",    " their", " time",  " if",
    " will", " way",  " about", " many", " then", " them",  " would", " like",  " so",    " these",
    " her",  " long", " make",  " thing"};

bool chance(double share, Random& random) {
  return std::uniform_real_distribution<>()(random) < share;
}

int below(int count, Random& random) {
  return std::uniform_int_distribution<>(0, count - 1)(random);
}

// Streams of numbers that have nothing to do with one another.
Random random_of(uint64_t seed, uint64_t purpose, uint64_t index) {
  std::seed_seq sequence{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                         static_cast<uint32_t>(purpose), static_cast<uint32_t>(index),
                         static_cast<uint32_t>(index >> 32)};
  return Random(sequence);
}
enum Purpose : uint64_t { kArrivals, kPrefixes, kConversations };

}  // namespace

Arrivals::Arrivals(ArrivalKind kind, double rate, uint64_t seed)
    : kind_(kind), rate_(rate), random_(random_of(seed, kArrivals, 0)) {}

double Arrivals::next() {
  if (kind_ == ArrivalKind::kFixed) last_ = static_cast<double>(count_++) / rate_;
  if (kind_ == ArrivalKind::kPoisson) last_ += std::exponential_distribution<>(rate_)(random_);
  return last_;
}

Workload::Workload(const WorkloadOptions& options) : options_(options) {
  for (int i = 0; i < options.prefix_groups; ++i) {
    Random random = random_of(options.seed, kPrefixes, static_cast<uint64_t>(i));
    prefixes_.push_back(text(options.prefix_tokens, random));
  }
}

Conversation Workload::conversation(uint64_t index) const {
  Random random = random_of(options_.seed, kConversations, index);
  Conversation turns(static_cast<size_t>(options_.turns.draw(random)));
  for (Turn& each : turns) each = turn(&each == &turns.front(), random);
  if (chance(options_.prefix_share, random)) {
    const int group = below(options_.prefix_groups, random);
    turns.front().text.insert(0, prefixes_[static_cast<size_t>(group)]);
  }
  return turns;
}

Turn Workload::turn(bool first, Random& random) const {
  Turn turn;
  turn.text =
      text((first ? options_.prompt_tokens : options_.follow_up_tokens).draw(random), random);
  turn.output_tokens = options_.output_tokens.draw(random);
  turn.leave_after = below(turn.output_tokens, random);
  const double place = std::uniform_real_distribution<>()(random);
  if (place < options_.disconnect_share) {
    turn.leave = Leave::kDisconnect;
  } else if (place < options_.disconnect_share + options_.cancel_share) {
    turn.leave = Leave::kCancel;
  }
  // A fourth of those who leave do so before they have seen a token: in the queue, or in prefill.
  if (chance(0.25, random)) turn.leave_after = 0;
  return turn;
}

std::string Workload::text(int tokens, Random& random) const {
  std::string text;
  for (int i = 0; i < tokens; ++i) {
    text += options_.words > 0 ? word(below(options_.words, random))
                               : kEnglish[static_cast<size_t>(below(kEnglish.size(), random))];
  }
  return text;
}

}  // namespace llorch::bench
