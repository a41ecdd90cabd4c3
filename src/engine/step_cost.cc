#include "engine/step_cost.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

using Parts = std::array<double, StepTimes::kParts>;

constexpr double kLeastMs = 0.05;  // less is not worth telling apart
constexpr int32_t kFewRows = 16, kFreeRows = 128;

// Kinds of steps: by what they do, by the power of two of their rows, by that of 8 of what a row
// reads.
constexpr size_t kDoings = 3, kRowClasses = 16, kReadClasses = 8;
constexpr double kNew = 0.1;           // weight of a step in its kind's mean
constexpr double kDrift = 0.02;        // weight of a step in how slow the machine is
constexpr double kOutlier = 1.5;       // a step counts as so many of its kind's mean at most
constexpr double kRemembered = 0.998;  // weight of a kind for each step since its last
constexpr int kSweeps = 40;

constexpr int kEnoughSteps = 3;       // to know what so many decode rows take
constexpr double kLeastGain = 0.05;   // tokens of a row: less is noise
constexpr double kDraftMargin = 1.2;  // of what is predicted: drafts that change nothing cost

}  // namespace

Parts StepTimes::parts(const StepLoad& load) {
  const int32_t rows = load.decode_rows + load.prefill_rows;
  return {1,
          static_cast<double>(rows),
          static_cast<double>(std::min(rows, kFewRows)),
          static_cast<double>(std::max(0, rows - kFreeRows)),
          static_cast<double>(load.decode_rows),
          load.decode_reads,
          load.prefill_reads};
}

double StepTimes::of(const StepLoad& load) const {
  const Parts x = parts(load);
  double sum = 0;
  for (size_t i = 0; i < kParts; ++i) sum += ms[i] * x[i];
  return sum;
}

StepCost::StepCost(std::vector<KvGroup> groups, const StepBounds& bounds)
    : groups_(std::move(groups)), bounds_(bounds), kinds_(kDoings * kRowClasses * kReadClasses) {
  CHECK(!groups_.empty());
}

// Row r of a sequence reads r + 1 tokens, or as many as the layer's window.
double StepCost::reads(int32_t computed, int32_t rows) const {
  double sum = 0, layers = 0;
  for (const KvGroup& group : groups_) {
    const auto up_to = [&](double tokens) {
      const double rising = group.window == 0 ? tokens : std::min<double>(tokens, group.window);
      return rising * (rising + 1) / 2 + (tokens - rising) * rising;
    };
    const double weight = std::max(1, static_cast<int>(group.layers));
    sum += weight * (up_to(computed + rows) - up_to(computed));
    layers += weight;
  }
  return sum / layers;
}

StepLoad StepCost::with_decode(StepLoad load, int32_t computed) const {
  ++load.decode_rows;
  load.decode_reads += reads(computed, 1);
  return load;
}

StepLoad StepCost::with_prefill(StepLoad load, int32_t computed, int32_t rows) const {
  load.prefill_rows += rows;
  load.prefill_reads += reads(computed, rows);
  return load;
}

size_t StepCost::kind_of(const StepLoad& load) {
  const auto rows = static_cast<uint32_t>(load.decode_rows + load.prefill_rows);
  const auto reads = static_cast<uint64_t>(load.decode_reads + load.prefill_reads) / rows;
  const size_t doing = load.decode_rows == 0 ? 0 : load.prefill_rows == 0 ? 1 : 2;
  const size_t row_class = std::min<size_t>(std::bit_width(rows), kRowClasses - 1);
  const size_t read_class = std::min<size_t>(std::bit_width(reads) / 3, kReadClasses - 1);
  return (doing * kRowClasses + row_class) * kReadClasses + read_class;
}

size_t StepCost::decode_class(const StepLoad& load) {
  return std::bit_width(static_cast<uint32_t>(load.decode_rows));
}

void StepCost::learn(const StepLoad& load, std::chrono::nanoseconds took) {
  const Parts x = StepTimes::parts(load);
  double ms = std::max(kLeastMs, static_cast<double>(took.count()) / 1e6);
  Kind& kind = kinds_[kind_of(load)];
  // What held up one step says nothing of the next; what holds up all of them is learned all the
  // same.
  if (kind.steps > 2) {
    ms = std::min(ms, kOutlier * kind.ms * slowness_);
    slowness_ *= 1 + kDrift * (std::clamp(ms / times_.of(load), 1 / kOutlier, kOutlier) - 1);
  }
  ms /= slowness_;
  const double part = std::max(kNew, 1.0 / ++kind.steps);
  kind.ms += part * (ms - kind.ms);
  for (size_t i = 0; i < x.size(); ++i) kind.parts[i] += part * (x[i] - kind.parts[i]);
  kind.last = ++steps_;
  ++decode_steps_[decode_class(load)];
  fit(x);
  for (size_t i = 0; i < x.size(); ++i) times_.ms[i] = fitted_.ms[i] * slowness_;
  known_ = true;
}

// Least squares of the relative error over all kinds; none of `changed` is what it says nothing of.
void StepCost::fit(const Parts& changed) {
  constexpr size_t kParts = StepTimes::kParts;
  std::array<Parts, kParts> products{};
  Parts sums{};
  for (const Kind& kind : kinds_) {
    if (kind.steps == 0) continue;
    const double weight = std::pow(kRemembered, static_cast<double>(steps_ - kind.last));
    for (size_t i = 0; i < kParts; ++i) {
      const double x = weight * kind.parts[i] / kind.ms;
      sums[i] += x;
      for (size_t j = 0; j < kParts; ++j) products[i][j] += x * kind.parts[j] / kind.ms;
    }
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (size_t i = 0; i < kParts; ++i) {
      if (changed[i] == 0) continue;
      double rest = sums[i];
      for (size_t j = 0; j < kParts; ++j) {
        if (j != i) rest -= products[i][j] * fitted_.ms[j];
      }
      fitted_.ms[i] = std::max(0.0, rest / products[i][i]);
    }
  }
}

void StepCost::learn_gap(std::chrono::nanoseconds took) {
  const double ms = static_cast<double>(took.count()) / 1e6;
  gap_ms_ = gap_ms_ == 0 ? ms : gap_ms_ + kNew * (std::min(ms, kOutlier * gap_ms_) - gap_ms_);
}

double StepCost::limit_ms(const StepLoad& load) const {
  if (load.decode_rows == 0) return static_cast<double>(bounds_.alone.count());
  StepLoad decode = load;
  decode.prefill_rows = 0;
  decode.prefill_reads = 0;
  return bounds_.beside_decode * times_.of(decode);
}

int32_t StepCost::prefill_rows(const StepLoad& load, int32_t computed, int32_t most) const {
  if (!known_) return most;
  const double limit = limit_ms(load);
  const int32_t floor = load.decode_rows > 0 ? bounds_.least_beside : bounds_.least_alone;
  // `least` fits, and more than `most` does not.
  int32_t least = std::clamp(floor - load.prefill_rows, 0, most);
  while (least < most) {
    const int32_t middle = least + (most - least + 1) / 2;
    if (times_.of(with_prefill(load, computed, middle)) <= limit) {
      least = middle;
    } else {
      most = middle - 1;
    }
  }
  return least;
}

bool StepCost::pays(const DraftPlan& plan, const StepLoad& more, double gain) const {
  if (gain < kLeastGain) return false;
  if (decode_steps_[decode_class(more)] < kEnoughSteps) return true;
  const double now = times_.of(plan.with), then = times_.of(more);
  if (gain * now < kDraftMargin * plan.tokens * (then - now)) return false;
  return then <= (bounds_.for_drafts + plan.least_gain) * times_.of(plan.without);
}

bool StepCost::worth_waiting(const DraftPlan& plan, double rows) const {
  if (plan.tokens <= rows) return false;
  if (decode_steps_[decode_class(plan.with)] < kEnoughSteps) return true;
  return plan.tokens * times_.of(plan.without) > rows * (times_.of(plan.with) + gap_ms_);
}

}  // namespace llorch
