// Lines on their way to an output that may be slow, full or gone: who adds one never waits for it.
// Knows nothing of what the lines say.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace llorch {

class LineQueue {
 public:
  // Writes all of it, and may block for as long as that takes; gives the bytes written, fewer if
  // it failed.
  using Write = std::function<size_t(std::string_view)>;
  // The line that tells how many lines before it are lost.
  using LostLine = std::function<std::string(uint64_t)>;

  // At most `capacity` bytes wait; what comes while they do is dropped and counted.
  LineQueue(size_t capacity, Write write, LostLine lost_line);
  // Writes what waits.
  ~LineQueue();

  // Adds a line, without its end. Any thread.
  void push(std::string line);
  // True once all that was added has been written or lost, false at the timeout.
  bool flush(std::chrono::milliseconds timeout);

 private:
  void run();
  bool write_line(std::string line);

  const size_t capacity_;
  const Write write_;
  const LostLine lost_line_;
  std::mutex mutex_;
  std::condition_variable added_, written_;
  std::vector<std::string> lines_;
  size_t bytes_ = 0;   // of lines_ and of what the thread has taken but not yet written
  uint64_t lost_ = 0;  // since the last line that told of it
  bool idle_ = true;   // the thread has nothing in its hands
  bool stopping_ = false;
  bool torn_ = false;   // the thread's: the last write stopped within a line
  std::thread thread_;  // last, for it uses all of the above
};

}  // namespace llorch
