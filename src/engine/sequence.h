// A request inside the engine: its tokens, which of them are computed, and the kv blocks that hold
// them. Engine thread only, but for its making.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/sip_hash.h"
#include "engine/block_manager.h"
#include "engine/draft.h"
#include "engine/energy.h"
#include "engine/metrics.h"
#include "engine/output.h"
#include "engine/request.h"

namespace llorch {

struct Sequence {
  Request request;              // its prompt has moved to `tokens`
  std::vector<int32_t> tokens;  // prompt, output, drafts; never moves in memory
  int32_t drafts = 0;           // guesses, which this step computes and then are known or gone
  int32_t prompt_tokens = 0;
  uint64_t arrival = 0;  // the scheduler's: its place among those of its priority
  int32_t computed = 0;  // tokens from the front whose k, v have been written
  // While a step is planned beside one that runs: of `computed`, what that one computes, and
  // whether the last of `tokens` is what it gives: not known yet, as Batch::tokens says it.
  int32_t in_flight = 0;
  bool pending = false;
  bool outgrown = false;       // they are for a length above SchedulerOptions::recompute_above
  std::vector<BlockTable> kv;  // [G], or empty
  std::vector<Hash128> chain;  // of its first whole blocks: PrefixCache's hashes of their contents
  int32_t findable = 0;        // while it waits: about how many it will find computed
  int32_t cached_tokens = -1;  // that the first admission found computed; -1: not admitted yet
  bool started = false;        // has been part of a step
  std::optional<Drafter> drafter;  // none: it is not to have drafts
  RequestTimes times;
  EnergyShare energy;
  std::optional<std::chrono::steady_clock::time_point> deadline;  // of request and timeout
  std::optional<Output> output;  // none in tests of what does not emit

  Sequence() = default;
  explicit Sequence(Request r) : request(std::move(r)), tokens(std::move(request.prompt)) {
    prompt_tokens = static_cast<int32_t>(tokens.size());
    tokens.reserve(tokens.size() + static_cast<size_t>(request.max_tokens));
  }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  int32_t known() const { return static_cast<int32_t>(tokens.size()) - drafts; }
  // The first `right` drafts are known from now on, the others are gone.
  void end_drafts(int32_t right) {
    tokens.resize(static_cast<size_t>(known() + right));
    drafts = 0;
  }
  // What a step has given after all that was known.
  void take(int32_t token) {
    if (pending) tokens.pop_back();
    pending = false;
    tokens.push_back(token);
  }
  // Tokens to compute until the next one can be sampled: 1 while decoding.
  int32_t missing() const { return known() - computed; }
  // missing(), less what a waiting one is likely to find.
  int32_t to_compute() const { return missing() - findable; }
  // The token after what is known is not the last, as far as its limit goes.
  bool goes_on() const { return known() + 1 < limit(); }
  // The most tokens it can ever hold.
  int32_t limit() const { return prompt_tokens + request.max_tokens; }
};

}  // namespace llorch
