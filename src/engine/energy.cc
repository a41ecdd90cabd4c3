#include "engine/energy.h"

#include <algorithm>
#include <utility>

namespace llorch {

EnergyAccount::EnergyAccount(Meter meter, size_t most_open)
    : meter_(std::move(meter)), last_(meter_()) {
  pending_.reserve(most_open);
}

double EnergyAccount::increase() {
  const std::optional<double> reading = last_ ? meter_() : std::nullopt;
  if (!reading) return 0;
  // A driver that is loaded anew may begin at zero again.
  return std::max(*reading - *std::exchange(last_, reading), 0.0);
}

// What a meter that lags shows only now may be of the steps before the rest: that much is paid,
// and nothing is learnt from the whole, because the rest is in it.
void EnergyAccount::step_begins() {
  if (!std::exchange(idle_, false)) return;
  const double drawn = increase();
  if (drawn == 0) return;
  owed_ -= std::min(owed_, drawn);
  ended_rows_ = 0;
}

void EnergyAccount::add(EnergyShare& share, int32_t rows) {
  if (!last_ || rows == 0) return;
  if (share.rows == 0) pending_.push_back(&share);
  share.rows += rows;
}

void EnergyAccount::step_ended() {
  int64_t rows = 0;
  for (const EnergyShare* share : pending_) rows += share->rows;
  const double drawn = increase();
  if (drawn == 0 || rows == 0) return;
  const double paid = std::min(owed_, drawn);
  owed_ -= paid;
  for (EnergyShare* share : pending_) {
    share->joules += (drawn - paid) * static_cast<double>(share->rows) / static_cast<double>(rows);
    share->rows = 0;
  }
  pending_.clear();
  last_increase_ = drawn;
  joules_per_row_ = drawn / static_cast<double>(rows + std::exchange(ended_rows_, 0));
}

std::optional<double> EnergyAccount::end(EnergyShare& share) {
  if (!last_) return std::nullopt;
  if (share.rows > 0) {
    const double guess = std::min(static_cast<double>(share.rows) * joules_per_row_,
                                  std::max(last_increase_ - owed_, 0.0));
    owed_ += guess;
    share.joules += guess;
    ended_rows_ += std::exchange(share.rows, 0);
    std::erase(pending_, &share);
  }
  return share.joules;
}

}  // namespace llorch
