// The hand-off of one job's events: a log that the engine thread writes, and its readers, each on a
// thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/request.h"

namespace llorch {

// Why a job was ended from outside; the first cause wins.
enum class CancelCause : int { kNone, kClient, kDisconnected, kShutdown, kSlowReader, kStalled };

class Reader;

struct StreamOptions {
  size_t reader_events = 1024;  // how far a reader may fall behind
  bool keep = false;            // what all have read stays, for readers to come
  // How long the job goes on once its last reader has left.
  std::chrono::milliseconds grace{0};
};

// The events of one job: started, then tokens and metrics, then exactly one end or failure. They
// are numbered from 0. Without a reader the job is cancelled, at once or after its grace.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit Stream(const StreamOptions& options = {});

  // Any thread.

  // A reader of the events from number `from` on, which must not be beyond size(). It reads what
  // is there, and then waits for `wake`: that is called from the thread that pushes, with no lock
  // held, when an event comes for a reader that had read all; it must only post. Null if the job
  // was cancelled.
  std::shared_ptr<Reader> attach(std::function<void()> wake, uint64_t from = 0);
  // Ends the job for all its readers. The engine looks before each step, and it steps as long as
  // any job is open.
  void cancel(CancelCause cause);
  uint64_t size() const;  // events so far
  bool is_cancelled() const { return cancel_ != CancelCause::kNone; }
  int readers_so_far() const { return readers_so_far_; }

  // Engine's side.

  // False once the stream has ended: the event is dropped. A reader that is too far behind is cut
  // off instead: it gets what it was behind, and a failure of its own.
  bool push(Event event);
  // Why the job is to end, if it is.
  CancelCause cancelled(TimePoint now);
  // Just before the terminal event is pushed. If the events are worth keeping, that is if the job
  // was to be kept and ends well: gives the bytes that all of them take, and from here on nothing
  // cancels the job.
  std::optional<size_t> settle(const Event& terminal);

 private:
  friend class Reader;
  using Shared = std::shared_ptr<const Event>;
  using Wake = std::shared_ptr<const std::function<void()>>;

  // All of these with the lock held.
  uint64_t size_locked() const { return first_ + events_.size() + (end_ ? 1 : 0); }
  Shared at(uint64_t number) const;
  void cancel_locked(CancelCause cause);
  void cut_slow_readers();
  void close(Reader& reader, Shared own_end, CancelCause cause);
  void drop_what_all_have_read();

  Wake take_wake();

  const StreamOptions options_;
  mutable std::mutex mutex_;   // held for a few lines
  std::deque<Shared> events_;  // those from number first_ on, without the terminal one
  uint64_t first_ = 0;
  Shared end_;
  std::vector<Reader*> readers_;
  std::optional<TimePoint> alone_since_;
  size_t bytes_ = 0;  // of the events, if they are kept
  bool settled_ = false;
  std::atomic<int> active_{0};  // readers that have neither left nor been cut off
  std::atomic<int> readers_so_far_{0};
  std::atomic<CancelCause> cancel_{CancelCause::kNone};
};

// One reader of a stream; leaves with its destruction.
class Reader {
 public:
  Reader(std::shared_ptr<Stream> stream, std::function<void()> wake, uint64_t from);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // The next event; null if there is none yet, or none any more.
  std::shared_ptr<const Event> next();
  // How many of the stream's events it has passed. What the reader alone is told, because it has
  // left or was cut off, is none of them. For the thread that calls next().
  uint64_t position() const { return position_; }
  bool first() const { return first_; }  // of its stream
  bool at_end() const;                   // there will be no event any more
  // It wants no more events: after those that are there already it is told that it was cancelled.
  // The job ends with its last reader, see StreamOptions.
  void leave();

 private:
  friend class Stream;
  static constexpr uint64_t kOpen = std::numeric_limits<uint64_t>::max();

  const std::shared_ptr<Stream> stream_;
  const Stream::Wake wake_;  // may be null

  // Guarded by the stream's lock.
  uint64_t position_;
  uint64_t fresh_from_;     // what was there before it came does not make it slow
  uint64_t until_ = kOpen;  // its events end here, followed by own_end_
  Stream::Shared own_end_;
  bool to_wake_ = false;
  bool first_ = false;
};

}  // namespace llorch
