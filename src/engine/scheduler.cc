#include "engine/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace llorch {

Scheduler::Scheduler(const SchedulerOptions& options, BlockManager& blocks)
    : options_(options), blocks_(blocks) {
  CHECK(options.max_batch > 0 && options.step_tokens >= options.max_batch);
  running_.reserve(static_cast<size_t>(options.max_batch));
  slices_.reserve(static_cast<size_t>(options.max_batch));
}

void Scheduler::add(Sequence* sequence) {
  CHECK(blocks_.blocks_for(sequence->limit()) <= blocks_.total());
  CHECK(sequence->missing() > 0);
  waiting_.push_back(sequence);
}

void Scheduler::remove(Sequence* sequence) {
  blocks_.release(sequence->blocks);
  CHECK(std::erase(running_, sequence) + std::erase(waiting_, sequence) == 1);
}

std::span<const Slice> Scheduler::schedule() {
  slices_.clear();
  int32_t budget = options_.step_tokens;
  const auto take = [&](Sequence* sequence) {
    const int32_t tokens = std::min(sequence->missing(), budget);
    slices_.push_back({sequence, tokens});
    budget -= tokens;
  };

  // Only a sequence younger than running_[i] is preempted, so none that has its slice already.
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->missing() == 1 && grow_or_preempt(*running_[i])) take(running_[i]);
  }
  for (Sequence* sequence : running_) {
    if (sequence->missing() > 1 && budget > 0) take(sequence);
  }
  while (budget > 0 && admit()) take(running_.back());
  CHECK(!slices_.empty() || (running_.empty() && waiting_.empty()));
  return slices_;
}

void Scheduler::computed() {
  for (const Slice& slice : slices_) slice.sequence->computed += slice.tokens;
}

bool Scheduler::grow_or_preempt(Sequence& sequence) {
  while (!blocks_.grow(sequence.blocks, sequence.computed + 1)) {
    const bool itself = running_.back() == &sequence;
    preempt_youngest();
    if (itself) return false;
  }
  return true;
}

void Scheduler::preempt_youngest() {
  Sequence* youngest = running_.back();
  blocks_.release(youngest->blocks);
  youngest->computed = 0;
  running_.pop_back();
  waiting_.push_front(youngest);
  ++preemptions_;
}

bool Scheduler::admit() {
  if (waiting_.empty() || running() == options_.max_batch) return false;
  Sequence& head = *waiting_.front();
  const auto total = static_cast<int32_t>(head.tokens.size());
  // Beside its prompt and first token, one spare block for each running sequence that can still
  // grow: else the newcomer would be preempted before its prompt has paid off.
  int32_t wanted = blocks_.blocks_for(std::min(total + 1, head.limit()));
  for (const Sequence* sequence : running_) {
    wanted += blocks_.blocks_for(sequence->limit()) > static_cast<int32_t>(sequence->blocks.size());
  }
  if (wanted > blocks_.free()) return false;
  CHECK(blocks_.grow(head.blocks, total));
  waiting_.pop_front();
  running_.push_back(&head);
  return true;
}

}  // namespace llorch
