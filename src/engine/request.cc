#include "engine/request.h"

namespace llorch {

std::optional<Event> Stream::next() {
  const std::lock_guard lock(mutex_);
  if (events_.empty()) return std::nullopt;
  std::optional<Event> event(std::move(events_.front()));
  events_.pop_front();
  return event;
}

void Stream::cancel(CancelCause cause) {
  CancelCause none = CancelCause::kNone;
  cancel_.compare_exchange_strong(none, cause, std::memory_order_acq_rel);
}

bool Stream::push(Event event) {
  const bool terminal =
      std::holds_alternative<EndEvent>(event) || std::holds_alternative<FailedEvent>(event);
  bool was_empty;
  {
    const std::lock_guard lock(mutex_);
    if (ended_ || (!terminal && events_.size() >= capacity_)) return false;
    ended_ = terminal;
    was_empty = events_.empty();
    events_.push_back(std::move(event));
  }
  if (was_empty && wake_) wake_();
  return true;
}

}  // namespace llorch
