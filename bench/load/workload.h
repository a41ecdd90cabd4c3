// What is asked, and when: drawn from a seed, so that two runs ask the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "load/lengths.h"

namespace llorch::bench {

enum class ArrivalKind { kPoisson, kFixed, kBurst };

// Seconds at which requests arrive, ascending from 0 on.
class Arrivals {
 public:
  // `rate`: a second, of the first two kinds; a burst is all at 0.
  Arrivals(ArrivalKind kind, double rate, uint64_t seed);

  double next();

 private:
  ArrivalKind kind_;
  double rate_, last_ = 0;
  uint64_t count_ = 0;
  Random random_;
};

// How a client ends its request before the server does.
enum class Leave { kNo, kDisconnect, kCancel };

struct Turn {
  std::string text;  // what the user adds
  int output_tokens = 0;
  Leave leave = Leave::kNo;
  int leave_after = 0;  // tokens; 0: once the answer's head is there
};

using Conversation = std::vector<Turn>;

struct WorkloadOptions {
  LengthMix prompt_tokens = LengthMix::parse("128");    // of a first turn, without the prefix
  LengthMix follow_up_tokens = LengthMix::parse("32");  // of the other turns
  LengthMix output_tokens = LengthMix::parse("64");
  LengthMix turns = LengthMix::parse("1");
  double prefix_share = 0;  // of the conversations: they begin with one of the shared prefixes
  int prefix_tokens = 256, prefix_groups = 1;
  double disconnect_share = 0, cancel_share = 0;  // of the requests
  int words = 2000;  // of a random model's vocabulary (words.h); 0: English, about a token a word
  uint64_t seed = 1;
};

class Workload {
 public:
  explicit Workload(const WorkloadOptions& options);

  // The same for the same index, in whatever order they are asked for.
  Conversation conversation(uint64_t index) const;

 private:
  std::string text(int tokens, Random& random) const;
  Turn turn(bool first, Random& random) const;

  WorkloadOptions options_;
  std::vector<std::string> prefixes_;
};

}  // namespace llorch::bench
