// Which sequences are part of the next step, and with how many tokens. Pure policy: knows no
// device, clock, text or thread.
//
// One order rules everywhere: the higher priority goes first, then who came first, and whoever was
// preempted keeps its place. What holds:
// - Nobody waits for what one of lower priority holds.
// - The foremost that runs is part of every step, unless its rope has just outgrown its k, v.
// - A prompt may be overtaken by shorter ones of its priority, but they leave the head of the line
//   its blocks and its place, and the foremost prompt has half of each step's prefill: it takes at
//   most twice the steps that it would take without them.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "engine/kv_blocks.h"
#include "engine/sequence.h"
#include "engine/step.h"
#include "engine/step_cost.h"

namespace llorch {

struct SchedulerOptions {
  int32_t max_batch = 0;    // sequences per step
  int32_t step_tokens = 0;  // tokens per step; at least max_batch
  // A sequence that grows beyond so many tokens is computed anew: its rope turns all of them
  // otherwise then. 0: none is.
  int32_t recompute_above = 0;
  int32_t draft_rows = 0;  // per step, beside the others; less than step_tokens - max_batch
};

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, KvBlocks& blocks, const StepCost& cost);

  // Into the waiting line, where its priority says. Its limit() fits all blocks together; the
  // caller owns it until remove().
  void add(Sequence* sequence);
  // Takes it out, wherever it is, and frees its blocks.
  void remove(Sequence* sequence);

  // The next step; valid until the next call. Decoding sequences come first, one row each, and
  // rows for drafts where these pay. What step_tokens and the step's cost leave goes to prompts:
  // half to the foremost, the rest to shorter ones of its priority, the shortest first, and what
  // they leave to the next in order. A prompt leaves the line when it gets its first rows, if it
  // has blocks for all its tokens. A sequence that finds no block takes those of the last in order,
  // which goes back to the line and is computed anew, output included. Empty only if there is no
  // sequence at all.
  std::span<const Slice> schedule();
  // The step after `step`, which is in flight alone, as schedule() would plan it once that one is
  // collected. What it gives is not known yet: a token pends, and a sequence that it may end has a
  // row all the same. Empty if the next step depends on more than that, or nothing is to be done.
  std::span<const Slice> schedule_ahead(std::span<const StepPart> step);
  const StepLoad& load() const { return load_; }  // of the scheduled slices
  // A step has been collected, the oldest in flight; of each part's drafts so many were `right`.
  void computed(std::span<const StepPart> step, std::span<const int32_t> right);
  // It could not be collected: to be planned again, as is all that came after it.
  void undo(std::span<const StepPart> step);

  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  uint64_t preemptions() const { return preemptions_; }  // so far

 private:
  // A decoding sequence and its drafts so far.
  struct Drafting {
    Sequence* sequence = nullptr;
    int32_t most = 0;
    double chance = 1;  // that all of them are right
    double gain = 0;    // how many of them are likely to be
  };

  bool can_run_ahead(std::span<const StepPart> step);
  bool may_admit(std::span<const StepPart> step);
  bool would_draft(std::span<const StepPart> step);
  void run_ahead(std::span<const StepPart> step);
  void restart_outgrown();
  void hold_or_preempt(Sequence& sequence);
  void make_way();
  void drop_drafts();
  void end_drafts(Sequence& sequence, int32_t right);
  void add_drafts();
  bool add_draft(Drafting& drafting);
  int32_t most_drafts(const Sequence& sequence, int32_t known) const;
  void prefill();
  Sequence* next_prompt();
  Sequence* shorter_than(const Sequence& first);
  int32_t rows_for(int32_t computed, int32_t wanted) const;
  void add_prefill(Slice& slice, int32_t most);
  void preempt_last();
  void back_to_line(size_t index);
  bool has_room(Sequence& sequence, size_t kept);
  void set_spare(size_t kept, const Sequence* next);
  bool admit(Sequence& sequence, const Sequence* next = nullptr);

  const SchedulerOptions options_;
  KvBlocks& blocks_;
  const StepCost& cost_;
  std::deque<Sequence*> waiting_;   // in order
  std::vector<Sequence*> running_;  // in order
  std::vector<Slice> slices_;
  StepLoad load_;                   // of slices_
  std::vector<Sequence*> prompts_;  // in order: those that run and may still get rows in this step
  std::vector<int32_t> spare_;      // set_spare()'s, of each group
  std::vector<Drafting> drafting_;
  StepCost::DraftPlan plan_;
  bool ahead_ = false;  // a step is being planned beside one that runs
  uint64_t arrivals_ = 0;
  uint64_t preemptions_ = 0;
};

}  // namespace llorch
