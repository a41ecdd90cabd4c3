// A step's parts: as planned, and as they are remembered while it is in flight.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/sequence.h"
#include "engine/step_cost.h"

namespace llorch {

// A sequence's part of a step: its next `tokens` tokens, and if these are all that is known its
// drafts. For all of them it has blocks.
struct Slice {
  Sequence* sequence = nullptr;
  int32_t tokens = 0;
  // The last of them is the sequence's last: what follows it is to be sampled.
  bool wants_token() const { return tokens == sequence->missing(); }
  int32_t drafts() const { return wants_token() ? sequence->drafts : 0; }
  int32_t rows() const { return tokens + drafts(); }
};

// A slice as it was when its step was submitted, whatever its sequence has become since.
struct StepPart {
  Sequence* sequence = nullptr;  // null: it has left since
  int32_t before = 0;            // its `computed` then
  int32_t tokens = 0, drafts = 0;
  bool wants_token = false;

  explicit StepPart(const Slice& slice)
      : sequence(slice.sequence),
        before(slice.sequence->computed),
        tokens(slice.tokens),
        drafts(slice.drafts()),
        wants_token(slice.wants_token()) {}
  int32_t rows() const { return tokens + drafts; }
  size_t wanted() const { return wants_token ? static_cast<size_t>(drafts) + 1 : 0; }
};

// Submitted and not collected.
struct StepInFlight {
  std::vector<StepPart> parts;
  StepLoad load;
  std::chrono::steady_clock::time_point began;  // on the device: once the one before was collected

  size_t wanted() const;  // rows
  bool is_for_nobody() const;
};

// Those in flight, two at most. Allocates nothing once made.
class StepsInFlight {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit StepsInFlight(int32_t max_batch);

  void add(std::span<const Slice> slices, const StepLoad& load, TimePoint now);
  void drop_newest();         // it could not be submitted
  void collected(TimePoint);  // the oldest; the next begins

  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  StepInFlight& oldest() { return steps_[first_]; }
  StepInFlight& newest() { return steps_[(first_ + count_ - 1) % 2]; }

  // It leaves: what is in flight of it is computed for nobody. Gives the rows.
  int32_t forget(const Sequence* sequence);

 private:
  StepInFlight steps_[2];
  size_t first_ = 0, count_ = 0;
};

}  // namespace llorch
