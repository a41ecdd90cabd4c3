#include "engine/stream.h"

#include <algorithm>
#include <utility>

namespace llorch {
namespace {

using Shared = std::shared_ptr<const Event>;

const Shared& too_slow() {
  static const Shared event = std::make_shared<const Event>(
      FailedEvent{"INFERENCE_FAILED", "the reader is too slow for its events", true});
  return event;
}
const Shared& has_left() {
  static const Shared event =
      std::make_shared<const Event>(FailedEvent{"CANCELLED", "the client has disconnected", false});
  return event;
}

// What an event that is kept takes: itself, its counts, its place in the log, what the allocator
// adds, and what it points to.
size_t bytes_of(const Event& event) {
  constexpr size_t kOverhead = 64;
  size_t bytes = sizeof(Event) + kOverhead;
  if (const auto* token = std::get_if<TokenEvent>(&event)) {
    bytes += token->text.capacity() + token->top.capacity() * sizeof(TokenLogprob);
  } else if (const auto* end = std::get_if<EndEvent>(&event)) {
    bytes += end->stop_sequence ? end->stop_sequence->capacity() : 0;
  }
  return bytes;
}

}  // namespace

Stream::Stream(const StreamOptions& options) : options_(options) {
  // Made with the first stream: when they are needed, there may be no memory left.
  too_slow();
  has_left();
}

std::shared_ptr<Reader> Stream::attach(std::function<void()> wake, uint64_t from) {
  auto reader = std::make_shared<Reader>(shared_from_this(), std::move(wake), from);
  const std::lock_guard lock(mutex_);  // goes before the reader does
  if (cancel_ != CancelCause::kNone) {
    reader->until_ = from;  // has left, as it were
    return nullptr;
  }
  reader->fresh_from_ = size_locked();
  readers_.push_back(reader.get());
  reader->first_ = readers_so_far_++ == 0;
  alone_since_.reset();
  ++active_;
  return reader;
}

void Stream::cancel(CancelCause cause) {
  const std::lock_guard lock(mutex_);
  cancel_locked(cause);
}

void Stream::cancel_locked(CancelCause cause) {
  if (cancel_ == CancelCause::kNone && !settled_) cancel_ = cause;
}

uint64_t Stream::size() const {
  const std::lock_guard lock(mutex_);
  return size_locked();
}

bool Stream::push(Event event) {
  const auto shared = std::make_shared<const Event>(std::move(event));
  const bool terminal = is_terminal(*shared);
  {
    const std::lock_guard lock(mutex_);
    if (end_) return false;
    if (!terminal) cut_slow_readers();
    for (Reader* reader : readers_) {
      if (reader->position_ == size_locked()) reader->to_wake_ = true;
    }
    if (terminal) {
      end_ = shared;
    } else {
      events_.push_back(shared);
    }
    if (options_.keep) bytes_ += bytes_of(*shared);
  }
  while (const Wake wake = take_wake()) (*wake)();
  return true;
}

CancelCause Stream::cancelled(TimePoint now) {
  if (active_ == 0 && cancel_ == CancelCause::kNone) {
    const std::lock_guard lock(mutex_);
    if (active_ == 0) {
      if (!alone_since_) alone_since_ = now;
      if (now - *alone_since_ >= options_.grace) cancel_locked(CancelCause::kDisconnected);
    }
  }
  return cancel_;
}

std::optional<size_t> Stream::settle(const Event& terminal) {
  const std::lock_guard lock(mutex_);
  if (!options_.keep || end_ || !std::holds_alternative<EndEvent>(terminal)) return std::nullopt;
  settled_ = true;
  cancel_ = CancelCause::kNone;
  return bytes_ + bytes_of(terminal);
}

Stream::Shared Stream::at(uint64_t number) const {
  if (number - first_ < events_.size()) return events_[number - first_];
  return number == first_ + events_.size() ? end_ : nullptr;
}

void Stream::cut_slow_readers() {
  for (Reader* reader : readers_) {
    const uint64_t behind = size_locked() - std::max(reader->position_, reader->fresh_from_);
    if (behind >= options_.reader_events) close(*reader, too_slow(), CancelCause::kSlowReader);
  }
}

void Stream::close(Reader& reader, Shared own_end, CancelCause cause) {
  if (reader.until_ != Reader::kOpen) return;
  reader.until_ = size_locked();
  if (end_) return;  // which is also the reader's
  reader.own_end_ = std::move(own_end);
  if (--active_ == 0 && options_.grace.count() == 0) cancel_locked(cause);
}

void Stream::drop_what_all_have_read() {
  if (options_.keep) return;
  uint64_t needed = size_locked();
  for (const Reader* reader : readers_) needed = std::min(needed, reader->position_);
  while (first_ < needed && !events_.empty()) {
    events_.pop_front();
    ++first_;
  }
}

// The call of one reader that is to be woken; null if none is left.
Stream::Wake Stream::take_wake() {
  const std::lock_guard lock(mutex_);
  for (Reader* reader : readers_) {
    if (std::exchange(reader->to_wake_, false) && reader->wake_) return reader->wake_;
  }
  return nullptr;
}

Reader::Reader(std::shared_ptr<Stream> stream, std::function<void()> wake, uint64_t from)
    : stream_(std::move(stream)),
      wake_(wake ? std::make_shared<const std::function<void()>>(std::move(wake)) : nullptr),
      position_(from),
      fresh_from_(from) {}

Reader::~Reader() {
  const std::lock_guard lock(stream_->mutex_);
  stream_->close(*this, nullptr, CancelCause::kDisconnected);
  std::erase(stream_->readers_, this);
}

std::shared_ptr<const Event> Reader::next() {
  const std::lock_guard lock(stream_->mutex_);
  if (position_ == until_) return std::exchange(own_end_, nullptr);
  Shared event = stream_->at(position_);
  if (event) {
    ++position_;
    stream_->drop_what_all_have_read();
  }
  return event;
}

bool Reader::at_end() const {
  const std::lock_guard lock(stream_->mutex_);
  if (position_ == until_) return !own_end_;
  return stream_->end_ && position_ == stream_->size_locked();
}

void Reader::leave() {
  const std::lock_guard lock(stream_->mutex_);
  stream_->close(*this, has_left(), CancelCause::kDisconnected);
}

}  // namespace llorch
