#include "engine/step.h"

#include <algorithm>

#include "base/error.h"

namespace llorch {

size_t StepInFlight::wanted() const {
  size_t sum = 0;
  for (const StepPart& part : parts) sum += part.wanted();
  return sum;
}

bool StepInFlight::is_for_nobody() const {
  return std::ranges::all_of(parts, [](const StepPart& part) { return part.sequence == nullptr; });
}

StepsInFlight::StepsInFlight(int32_t max_batch) {
  for (StepInFlight& step : steps_) step.parts.reserve(static_cast<size_t>(max_batch));
}

void StepsInFlight::add(std::span<const Slice> slices, const StepLoad& load, TimePoint now) {
  CHECK(count_ < 2);
  ++count_;
  StepInFlight& step = newest();
  step.parts.clear();
  for (const Slice& slice : slices) step.parts.emplace_back(slice);
  step.load = load;
  step.began = now;
}

void StepsInFlight::drop_newest() {
  CHECK(count_ > 0);
  --count_;
}

void StepsInFlight::collected(TimePoint now) {
  CHECK(count_ > 0);
  first_ = (first_ + 1) % 2;
  if (--count_ > 0) oldest().began = std::max(oldest().began, now);
}

int32_t StepsInFlight::forget(const Sequence* sequence) {
  int32_t rows = 0;
  for (size_t i = 0; i < count_; ++i) {
    for (StepPart& part : steps_[(first_ + i) % 2].parts) {
      if (part.sequence != sequence) continue;
      part.sequence = nullptr;
      rows += part.rows();
    }
  }
  return rows;
}

}  // namespace llorch
