#include "engine/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace llorch {
namespace {

bool before(const Sequence* a, const Sequence* b) {
  if (a->request.priority != b->request.priority) return a->request.priority > b->request.priority;
  return a->arrival < b->arrival;
}

template <class List>
void insert_in_order(List& list, Sequence* sequence) {
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, before), sequence);
}

// The first of those with the fewest tokens to compute, if they are fewer than `than`.
template <class Iterator>
Iterator shortest(Iterator begin, Iterator end, int32_t than) {
  Iterator found = end;
  for (Iterator i = begin; i != end; ++i) {
    if ((*i)->to_compute() >= than) continue;
    found = i;
    than = (*i)->to_compute();
  }
  return found;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, KvBlocks& blocks, const StepCost& cost)
    : options_(options), blocks_(blocks), cost_(cost) {
  CHECK(options.max_batch > 0 && options.step_tokens >= options.max_batch);
  running_.reserve(static_cast<size_t>(options.max_batch));
  slices_.reserve(static_cast<size_t>(options.max_batch));
  prompts_.reserve(static_cast<size_t>(options.max_batch));
  drafting_.reserve(static_cast<size_t>(options.max_batch));
}

void Scheduler::add(Sequence* sequence) {
  CHECK(blocks_.fits(sequence->limit()));
  CHECK(sequence->missing() > 0);
  sequence->arrival = arrivals_++;
  sequence->findable = blocks_.findable(*sequence);
  insert_in_order(waiting_, sequence);
}

void Scheduler::remove(Sequence* sequence) {
  blocks_.release(sequence->kv);
  CHECK(std::erase(running_, sequence) + std::erase(waiting_, sequence) == 1);
}

std::span<const Slice> Scheduler::schedule() {
  slices_.clear();
  ahead_ = false;
  drop_drafts();
  restart_outgrown();
  // Whoever is preempted here comes later in order, so nobody loses what it has just been given.
  for (size_t i = 0; i < running_.size(); ++i) hold_or_preempt(*running_[i]);
  make_way();
  load_ = {};
  for (Sequence* sequence : running_) {
    if (sequence->missing() > 1) continue;
    slices_.push_back({sequence, 1});
    load_ = cost_.with_decode(load_, sequence->computed);
  }
  add_drafts();
  prefill();
  CHECK(!slices_.empty() || (running_.empty() && waiting_.empty()));
  return slices_;
}

std::span<const Slice> Scheduler::schedule_ahead(std::span<const StepPart> step) {
  if (!can_run_ahead(step)) return {};
  slices_.clear();
  ahead_ = true;
  load_ = {};
  run_ahead(step);
  for (Sequence* sequence : running_) {
    if (sequence->missing() == 0) continue;  // it ends with what pends
    // Nobody is preempted for a row that may be for nothing.
    if (!blocks_.hold(sequence->kv, sequence->computed, sequence->known(), sequence->in_flight)) {
      return {};
    }
    if (sequence->missing() > 1) continue;
    slices_.push_back({sequence, 1});
    load_ = cost_.with_decode(load_, sequence->computed);
  }
  prefill();
  return slices_;
}

// Whether all that the step after `step` depends on is known, but for the tokens that it gives.
bool Scheduler::can_run_ahead(std::span<const StepPart> step) {
  for (const StepPart& part : step) {
    if (part.drafts > 0) return false;  // who knows how many are right
    if (part.sequence == nullptr || !part.wants_token) continue;
    const Sequence& sequence = *part.sequence;
    if (!sequence.goes_on()) continue;
    const float penalty = sequence.request.sampling.repetition_penalty;
    if (penalty != 0 && penalty != 1) return false;  // it asks which tokens there were
    const bool outgrows =
        options_.recompute_above > 0 && sequence.known() + 1 > options_.recompute_above;
    if (outgrows && !sequence.outgrown) return false;
  }
  return !may_admit(step) && !would_draft(step);
}

// Whether somebody of the line may have a place in the step after `step`.
bool Scheduler::may_admit(std::span<const StepPart> step) {
  if (waiting_.empty()) return false;
  int32_t decoding = 0;
  for (const StepPart& part : step) {
    if (!part.sequence || !part.wants_token) continue;
    if (!part.sequence->goes_on()) return true;
    ++decoding;
  }
  Sequence& head = *waiting_.front();
  if (running_.empty() || running_.back()->request.priority < head.request.priority) return true;
  if (running() == options_.max_batch) return false;
  // Beside a prompt that goes on a shorter one may, wherever in the line it is.
  return decoding < running() || has_room(head, running_.size());
}

// Whether drafts are likely to be worth waiting for `step`, by what is known before it: one guess
// of each sequence.
bool Scheduler::would_draft(std::span<const StepPart> step) {
  if (options_.draft_rows == 0) return false;
  const auto decodes = [](const StepPart& part) {
    return part.sequence && part.wants_token && part.sequence->goes_on();
  };
  plan_ = {};
  for (const StepPart& part : step) {
    if (!decodes(part)) continue;
    plan_.without = cost_.with_decode(plan_.without, part.sequence->known());
    ++plan_.tokens;
  }
  const double rows = plan_.tokens;
  plan_.with = plan_.without;
  for (const StepPart& part : step) {
    if (!decodes(part) || !part.sequence->drafter) continue;
    const int32_t known = part.sequence->known() + 1;
    if (most_drafts(*part.sequence, known) < 1) continue;
    part.sequence->drafter->follow(part.sequence->tokens);
    const double chance = part.sequence->drafter->chance_of_two();
    const StepLoad more = cost_.with_decode(plan_.with, known);
    if (!cost_.pays(plan_, more, chance)) continue;
    plan_.with = more;
    plan_.tokens += chance;
  }
  return cost_.worth_waiting(plan_, rows);
}

// From here on the step counts as computed.
void Scheduler::run_ahead(std::span<const StepPart> step) {
  int32_t row = 0;
  for (const StepPart& part : step) {
    row += part.wants_token;
    if (part.sequence == nullptr) continue;
    Sequence& sequence = *part.sequence;
    const bool goes_on = part.wants_token && sequence.goes_on();
    sequence.computed += part.tokens;
    sequence.in_flight = part.tokens;
    if (!goes_on) continue;
    sequence.tokens.push_back(-row);  // Batch::tokens: -1 - r, of the r-th
    sequence.pending = true;
  }
}

void Scheduler::computed(std::span<const StepPart> step, std::span<const int32_t> right) {
  CHECK(right.size() == step.size());
  for (size_t i = 0; i < step.size(); ++i) {
    if (step[i].sequence == nullptr) continue;
    Sequence& sequence = *step[i].sequence;
    if (sequence.in_flight == 0) sequence.computed += step[i].tokens + right[i];
    sequence.in_flight = 0;
    end_drafts(sequence, right[i]);
    blocks_.remember(sequence, step[i].before);
  }
}

void Scheduler::undo(std::span<const StepPart> step) {
  for (const StepPart& part : step) {
    if (part.sequence == nullptr) continue;
    Sequence& sequence = *part.sequence;
    sequence.computed = part.before;
    sequence.in_flight = 0;
    if (sequence.pending) sequence.tokens.pop_back();
    sequence.pending = false;
  }
}

// Blocks that were taken for nothing else go back, so no one has more than without drafts.
void Scheduler::end_drafts(Sequence& sequence, int32_t right) {
  if (sequence.drafts == 0) return;
  sequence.end_drafts(right);
  blocks_.trim(sequence.kv, sequence.known());
}

void Scheduler::restart_outgrown() {
  if (options_.recompute_above == 0) return;
  for (size_t i = running_.size(); i-- > 0;) {
    const bool outgrown = running_[i]->known() > options_.recompute_above;
    if (!outgrown || running_[i]->outgrown) continue;
    running_[i]->chain.clear();  // the same tokens are another content now
    back_to_line(i);
  }
}

// Each decoding sequence in turn gets one more guess, as long as that pays.
void Scheduler::add_drafts() {
  drafting_.clear();
  if (options_.draft_rows == 0) return;
  for (const Slice& slice : slices_) {
    Sequence& sequence = *slice.sequence;
    if (!sequence.drafter) continue;
    sequence.drafter->follow(sequence.tokens);
    const int32_t most = most_drafts(sequence, sequence.known());
    if (most > 0) drafting_.push_back({&sequence, most});
  }
  plan_ = {load_, load_, static_cast<double>(slices_.size()), 0};
  const bool all = drafting_.size() == slices_.size();
  for (bool more = true; more;) {
    more = false;
    for (Drafting& drafting : drafting_) more |= add_draft(drafting);
    const auto less = [](const Drafting& a, const Drafting& b) { return a.gain < b.gain; };
    if (all && more) plan_.least_gain = std::ranges::min(drafting_, less).gain;
  }
}

bool Scheduler::add_draft(Drafting& drafting) {
  Sequence& sequence = *drafting.sequence;
  if (sequence.drafts == drafting.most) return false;
  const int32_t end = sequence.known() + sequence.drafts + 1;
  const auto guess = sequence.drafter->next(sequence.tokens);
  const double chance = guess ? drafting.chance * guess->chance : 0;
  const StepLoad more = cost_.with_decode(load_, end - 1);
  const int32_t rows = more.decode_rows - plan_.without.decode_rows;
  if (rows > options_.draft_rows || !cost_.pays(plan_, more, chance) ||
      !blocks_.hold(sequence.kv, sequence.computed, end)) {
    drafting.most = sequence.drafts;
    return false;
  }
  sequence.tokens.push_back(guess->token);
  ++sequence.drafts;
  drafting.chance = chance;
  drafting.gain += chance;
  plan_.tokens += chance;
  plan_.with = load_ = more;
  return true;
}

int32_t Scheduler::most_drafts(const Sequence& sequence, int32_t known) const {
  constexpr int32_t kMost = 15;  // few are right so far on, and a reader gets them in one burst
  // What follows the last of them is a token too.
  int32_t most = std::min(kMost, sequence.limit() - known - 1);
  // All rows must be turned by the angles that the sequence has now.
  if (known <= options_.recompute_above) most = std::min(most, options_.recompute_above - known);
  // What is free belongs to those who wait.
  if (!waiting_.empty()) most = std::min(most, blocks_.held_tokens(sequence.kv) - known);
  return most;
}

// Those of a step for which there was no memory.
void Scheduler::drop_drafts() {
  for (Sequence* sequence : running_) end_drafts(*sequence, 0);
}

void Scheduler::hold_or_preempt(Sequence& sequence) {
  while (!blocks_.hold(sequence.kv, sequence.computed, sequence.known())) {
    const bool itself = running_.back() == &sequence;
    preempt_last();
    if (itself) return;
  }
}

// If the head of the line is next and would have room but for those of lower priority, they go. One
// of its own priority keeps what it has: its reader should not see it stand still.
void Scheduler::make_way() {
  if (waiting_.empty()) return;
  Sequence* head = waiting_.front();
  const auto ahead = std::find_if(running_.begin(), running_.end(), [&](const Sequence* s) {
    return s->request.priority < head->request.priority;
  });
  if (ahead == running_.end()) return;
  if (std::any_of(running_.begin(), ahead, [](auto* s) { return s->missing() > 1; })) return;
  const auto least = static_cast<size_t>(ahead - running_.begin());
  for (size_t kept = running_.size() + 1; kept-- > least;) {
    if (!has_room(*head, kept)) continue;
    while (running_.size() > kept) preempt_last();
    return;
  }
}

void Scheduler::prefill() {
  prompts_.clear();
  for (Sequence* sequence : running_) {
    if (sequence->missing() > 1) prompts_.push_back(sequence);
  }
  while (rows_for(0, options_.step_tokens) > 0) {
    Sequence* first = next_prompt();
    if (!first) return;
    const int32_t rows = rows_for(first->computed, options_.step_tokens);
    if (rows == 0) return;
    slices_.push_back({first, 0});
    Slice& half = slices_.back();
    add_prefill(half, rows - rows / 2);
    while (rows_for(0, 1) > 0) {
      Sequence* shorter = shorter_than(*first);
      if (!shorter) break;
      Slice slice{shorter, 0};
      add_prefill(slice, options_.step_tokens);
      if (slice.tokens == 0) break;
      slices_.push_back(slice);
    }
    add_prefill(half, options_.step_tokens);
  }
}

// The foremost that can have rows, out of the line if need be. Null if there is none.
Sequence* Scheduler::next_prompt() {
  if (!waiting_.empty()) {
    Sequence* head = waiting_.front();
    const bool is_next = prompts_.empty() || before(head, prompts_.front());
    if (is_next && admit(*head)) return head;
  }
  if (prompts_.empty()) return nullptr;
  Sequence* first = prompts_.front();
  prompts_.erase(prompts_.begin());
  return first;
}

// The shortest prompt of the same priority that can have rows, if it is shorter than the rest of
// `first`; out of the line if need be. Null if there is none.
Sequence* Scheduler::shorter_than(const Sequence& first) {
  const auto same = [&](const Sequence* s) {
    return s->request.priority == first.request.priority;
  };
  const auto running_end = std::find_if_not(prompts_.begin(), prompts_.end(), same);
  const auto running = shortest(prompts_.begin(), running_end, first.missing());
  const int32_t least = running == running_end ? first.missing() : (*running)->missing();
  const auto line_end = std::find_if_not(waiting_.begin(), waiting_.end(), same);
  const auto waiting = shortest(waiting_.begin(), line_end, least);
  if (waiting != line_end) {
    Sequence* sequence = *waiting;
    const Sequence* head = waiting_.front();
    const Sequence* next = head == sequence ? nullptr : head;
    if (admit(*sequence, next)) return sequence;
  }
  if (running == running_end) return nullptr;
  Sequence* sequence = *running;
  prompts_.erase(running);
  return sequence;
}

// How many of the rows wanted the step still has for a sequence.
int32_t Scheduler::rows_for(int32_t computed, int32_t wanted) const {
  const int32_t left = options_.step_tokens - load_.decode_rows - load_.prefill_rows;
  return cost_.prefill_rows(load_, computed, std::min(left, wanted));
}

void Scheduler::add_prefill(Slice& slice, int32_t most) {
  const int32_t begin = slice.sequence->computed + slice.tokens;
  const int32_t rows = rows_for(begin, std::min(most, slice.sequence->known() - begin));
  slice.tokens += rows;
  load_ = cost_.with_prefill(load_, begin, rows);
}

void Scheduler::preempt_last() {
  back_to_line(running_.size() - 1);
  ++preemptions_;
}

void Scheduler::back_to_line(size_t index) {
  Sequence* sequence = running_[index];
  blocks_.release(sequence->kv);
  sequence->findable = sequence->chain.empty() ? 0 : sequence->computed;
  sequence->computed = 0;
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  insert_in_order(waiting_, sequence);
}

// Whether a sequence of the line can run beside the first `kept` running ones, were the others
// gone.
bool Scheduler::has_room(Sequence& sequence, size_t kept) {
  if (kept >= static_cast<size_t>(options_.max_batch)) return false;
  set_spare(kept, nullptr);
  if (kept == running_.size()) return blocks_.has_room(sequence, spare_);
  const auto leaving = std::span(running_).subspan(kept);
  for (size_t g = 0; g < blocks_.groups(); ++g) {
    const int32_t wanted = blocks_.needed(g, sequence) + spare_[g];
    if (wanted > blocks_.free(g) + blocks_.held_only_by(g, leaving)) return false;
  }
  return true;
}

// Blocks that a newcomer must leave: one for each of the first `kept` running sequences that can
// still grow, else it would be preempted before its prompt has paid off, and `next`'s.
void Scheduler::set_spare(size_t kept, const Sequence* next) {
  spare_.assign(blocks_.groups(), 0);
  for (size_t g = 0; g < blocks_.groups(); ++g) {
    for (size_t i = 0; i < kept; ++i) {
      spare_[g] += blocks_.can_grow(g, running_[i]->kv[g], running_[i]->limit());
    }
    if (next) spare_[g] += blocks_.needed(g, *next);
  }
}

// Lets a sequence of the line run, if that leaves `next` (may be null) its room.
bool Scheduler::admit(Sequence& sequence, const Sequence* next) {
  if (ahead_) return false;  // what it may find is not remembered yet
  if (running() + (next ? 2 : 1) > options_.max_batch) return false;
  // What another computes in this step it finds in the next.
  const auto is_source = [&](const Slice& s) { return blocks_.awaits(sequence, *s.sequence); };
  if (std::any_of(slices_.begin(), slices_.end(), is_source)) return false;
  set_spare(running_.size(), next);
  if (!blocks_.begin(sequence, spare_)) return false;
  sequence.findable = 0;
  sequence.outgrown = options_.recompute_above > 0 && sequence.known() > options_.recompute_above;
  std::erase(waiting_, &sequence);
  insert_in_order(running_, &sequence);
  return true;
}

}  // namespace llorch
