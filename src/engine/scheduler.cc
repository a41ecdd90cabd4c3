#include "engine/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace llorch {

Scheduler::Scheduler(const SchedulerOptions& options, KvBlocks& blocks)
    : options_(options), blocks_(blocks) {
  CHECK(options.max_batch > 0 && options.step_tokens >= options.max_batch);
  running_.reserve(static_cast<size_t>(options.max_batch));
  slices_.reserve(static_cast<size_t>(options.max_batch));
}

void Scheduler::add(Sequence* sequence) {
  CHECK(blocks_.fits(sequence->limit()));
  CHECK(sequence->missing() > 0);
  waiting_.push_back(sequence);
}

void Scheduler::remove(Sequence* sequence) {
  blocks_.release(sequence->kv);
  CHECK(std::erase(running_, sequence) + std::erase(waiting_, sequence) == 1);
}

std::span<const Slice> Scheduler::schedule() {
  slices_.clear();
  restart_outgrown();
  int32_t budget = options_.step_tokens;
  const auto take = [&](Sequence* sequence) {
    const int32_t tokens = std::min(sequence->missing(), budget);
    slices_.push_back({sequence, tokens});
    budget -= tokens;
  };

  // Only a sequence younger than running_[i] is preempted, so none that has its slice already.
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->missing() == 1 && hold_or_preempt(*running_[i])) take(running_[i]);
  }
  for (Sequence* sequence : running_) {
    if (sequence->missing() == 1 || budget == 0) continue;
    CHECK(blocks_.hold(sequence->kv, sequence->computed, sequence->known()));
    take(sequence);
  }
  while (budget > 0 && admit()) take(running_.back());
  CHECK(!slices_.empty() || (running_.empty() && waiting_.empty()));
  return slices_;
}

void Scheduler::computed() {
  for (const Slice& slice : slices_) slice.sequence->computed += slice.tokens;
}

void Scheduler::restart_outgrown() {
  if (options_.recompute_above == 0) return;
  // From the youngest, so that they keep their order in the line.
  for (size_t i = running_.size(); i-- > 0;) {
    const bool outgrown = running_[i]->known() > options_.recompute_above;
    if (outgrown && !running_[i]->outgrown) back_to_line(i);
  }
}

bool Scheduler::hold_or_preempt(Sequence& sequence) {
  while (!blocks_.hold(sequence.kv, sequence.computed, sequence.known())) {
    const bool itself = running_.back() == &sequence;
    back_to_line(running_.size() - 1);
    ++preemptions_;
    if (itself) return false;
  }
  return true;
}

void Scheduler::back_to_line(size_t index) {
  Sequence* sequence = running_[index];
  blocks_.release(sequence->kv);
  sequence->computed = 0;
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  waiting_.push_front(sequence);
}

bool Scheduler::admit() {
  if (waiting_.empty() || running() == options_.max_batch) return false;
  Sequence& head = *waiting_.front();
  const int32_t total = head.known();
  // Beside its prompt and first token, one spare block for each running sequence that can still
  // grow: else the newcomer would be preempted before its prompt has paid off.
  for (size_t g = 0; g < blocks_.groups(); ++g) {
    int32_t wanted = blocks_.needed(g, std::min(total + 1, head.limit()));
    for (const Sequence* sequence : running_) {
      wanted += blocks_.can_grow(g, sequence->kv[g], sequence->limit());
    }
    if (wanted > blocks_.free(g)) return false;
  }
  CHECK(blocks_.hold(head.kv, 0, total));
  head.outgrown = options_.recompute_above > 0 && total > options_.recompute_above;
  waiting_.pop_front();
  running_.push_back(&head);
  return true;
}

}  // namespace llorch
