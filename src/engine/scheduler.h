// Which sequences are part of the next step, and with how many tokens. Pure policy: knows no
// device, clock, text or thread.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "engine/kv_blocks.h"
#include "engine/sequence.h"

namespace llorch {

// A sequence's part of a step: its next `tokens` tokens, for which it has blocks.
struct Slice {
  Sequence* sequence = nullptr;
  int32_t tokens = 0;
  // The last of them is the sequence's last: what follows it is to be sampled.
  bool wants_token() const { return tokens == sequence->missing(); }
};

struct SchedulerOptions {
  int32_t max_batch = 0;    // sequences per step
  int32_t step_tokens = 0;  // tokens per step; at least max_batch
  // A sequence that grows beyond so many tokens is computed anew: its rope turns all of them
  // otherwise then. 0: none is.
  int32_t recompute_above = 0;
};

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, KvBlocks& blocks);

  // To the tail of the waiting line. Its limit() fits all blocks together; the caller owns it until
  // remove().
  void add(Sequence* sequence);
  // Takes it out, wherever it is, and frees its blocks.
  void remove(Sequence* sequence);

  // The next step; valid until the next call. Decoding sequences come first, one row each; what the
  // budget leaves goes to prompts, oldest first, then to the head of the waiting line if its whole
  // prompt has blocks. A decoding sequence that finds no block takes those of the youngest running
  // one, which goes back to the head of the line and is computed anew, output included.
  // Empty only if there is no sequence at all.
  std::span<const Slice> schedule();
  // The scheduled slices have been computed.
  void computed();

  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  uint64_t preemptions() const { return preemptions_; }  // so far

 private:
  void restart_outgrown();
  bool hold_or_preempt(Sequence& sequence);
  void back_to_line(size_t index);
  bool admit();

  const SchedulerOptions options_;
  KvBlocks& blocks_;
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> running_;  // oldest first
  std::vector<Slice> slices_;
  uint64_t preemptions_ = 0;
};

}  // namespace llorch
