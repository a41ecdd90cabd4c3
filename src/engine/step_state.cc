#include "engine/step_state.h"

#include <algorithm>
#include <utility>

namespace llorch {
namespace {

constexpr size_t kJobIdBytes = 128;

}  // namespace

StepBoard::StepBoard(int32_t max_batch) : parts_(static_cast<size_t>(max_batch)) {
  for (StepState::Part& part : parts_) part.job_id.reserve(kJobIdBytes);
}

void StepBoard::post(StepState head, std::span<const StepPart> parts) {
  const std::lock_guard lock(mutex_);
  state_ = std::move(head);
  count_ = 0;
  for (const StepPart& of_step : parts) {
    if (of_step.sequence == nullptr || count_ == parts_.size()) continue;
    const Sequence& sequence = *of_step.sequence;
    StepState::Part& part = parts_[count_++];
    part.job_id.assign(sequence.request.job_id, 0, kJobIdBytes);
    part.decoding = sequence.missing() == 1;
    part.computed = sequence.computed;
    part.known = sequence.known();
    part.blocks = 0;
    for (const BlockTable& table : sequence.kv) part.blocks += table.held();
  }
}

StepState StepBoard::read() const {
  const std::lock_guard lock(mutex_);
  StepState state = state_;
  state.sequences.assign(parts_.begin(), parts_.begin() + static_cast<std::ptrdiff_t>(count_));
  return state;
}

}  // namespace llorch
