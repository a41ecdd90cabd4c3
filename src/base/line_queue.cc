#include "base/line_queue.h"

#include <utility>

#include "base/os.h"

namespace llorch {

LineQueue::LineQueue(size_t capacity, Write write, LostLine lost_line)
    : capacity_(capacity),
      write_(std::move(write)),
      lost_line_(std::move(lost_line)),
      thread_([this] {
        os::name_this_thread("log");
        run();
      }) {}

LineQueue::~LineQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  added_.notify_one();
  thread_.join();
}

void LineQueue::push(std::string line) {
  {
    const std::lock_guard lock(mutex_);
    if (bytes_ + line.size() > capacity_) {
      ++lost_;
      return;
    }
    const size_t bytes = line.size();
    lines_.push_back(std::move(line));
    bytes_ += bytes;
  }
  added_.notify_one();
}

bool LineQueue::flush(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return written_.wait_for(lock, timeout, [&] { return lines_.empty() && idle_; });
}

void LineQueue::run() {
  std::vector<std::string> taken;
  std::unique_lock lock(mutex_);
  for (;;) {
    added_.wait(lock, [&] { return !lines_.empty() || stopping_; });
    if (lines_.empty()) return;
    taken.swap(lines_);
    idle_ = false;
    for (std::string& line : taken) {
      const size_t bytes = line.size();
      const uint64_t lost = lost_;
      lock.unlock();
      const bool told = lost == 0 || write_line(lost_line_(lost));
      const bool done = told && write_line(std::move(line));
      lock.lock();
      bytes_ -= bytes;
      if (told) lost_ -= lost;
      if (!done) ++lost_;
    }
    taken.clear();
    idle_ = true;
    written_.notify_all();
  }
}

bool LineQueue::write_line(std::string line) {
  // What a full disk has cut short must not swallow the line that comes once there is room.
  if (torn_) line.insert(0, 1, '\n');
  line += '\n';
  const size_t written = write_(line);
  torn_ = written < line.size() && (torn_ || written > 0);
  return written == line.size();
}

}  // namespace llorch
