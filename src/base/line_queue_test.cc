#include "base/line_queue.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

namespace llorch {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLong{60'000};

// An output that can be blocked, full or cut short.
class Output {
 public:
  size_t write(std::string_view bytes) {
    std::unique_lock lock(mutex_);
    ++entered_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !blocked_; });
    const size_t count = std::min(bytes.size(), room_);
    text_ += bytes.substr(0, count);
    return count;
  }
  void set_blocked(bool blocked) {
    const std::lock_guard lock(mutex_);
    blocked_ = blocked;
    changed_.notify_all();
  }
  void set_room(size_t room) {
    const std::lock_guard lock(mutex_);
    room_ = room;
  }
  void wait_entered() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return entered_ > 0; });
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool blocked_ = false;
  size_t room_ = std::string::npos;
  int entered_ = 0;
  std::string text_;
};

struct Fixture {
  Output output;
  LineQueue queue{10, [this](std::string_view bytes) { return output.write(bytes); },
                  [](uint64_t lost) { return "lost " + std::to_string(lost); }};
};

TEST(LineQueue, WritesLinesInOrder) {
  Fixture f;
  f.queue.push("one");
  f.queue.push("two");
  EXPECT_TRUE(f.queue.flush(kLong));
  EXPECT_EQ(f.output.text(), "one\ntwo\n");
}

TEST(LineQueue, DropsAndCountsWhatFindsNoRoomWhileTheOutputBlocks) {
  Fixture f;
  f.output.set_blocked(true);
  f.queue.push("12345");
  f.output.wait_entered();
  f.queue.push("67890");  // 10 bytes wait now
  f.queue.push("x");
  f.queue.push("y");
  EXPECT_FALSE(f.queue.flush(milliseconds(1)));
  f.output.set_blocked(false);
  EXPECT_TRUE(f.queue.flush(kLong));
  // The line that was waiting is the first that can tell.
  EXPECT_EQ(f.output.text(), "12345\nlost 2\n67890\n");
  f.queue.push("more");
  EXPECT_TRUE(f.queue.flush(kLong));
  EXPECT_EQ(f.output.text(), "12345\nlost 2\n67890\nmore\n");
}

TEST(LineQueue, CountsWhatAFullOutputRefusesAndTellsOnceThereIsRoom) {
  Fixture f;
  f.output.set_room(0);
  for (int i = 0; i < 3; ++i) {
    f.queue.push("gone");
    EXPECT_TRUE(f.queue.flush(kLong));
  }
  f.output.set_room(std::string::npos);
  f.queue.push("back");
  EXPECT_TRUE(f.queue.flush(kLong));
  EXPECT_EQ(f.output.text(), "lost 3\nback\n");
}

TEST(LineQueue, ALineCutShortDoesNotSwallowTheNext) {
  Fixture f;
  f.output.set_room(2);
  f.queue.push("cut");
  EXPECT_TRUE(f.queue.flush(kLong));
  f.output.set_room(std::string::npos);
  f.queue.push("whole");
  EXPECT_TRUE(f.queue.flush(kLong));
  EXPECT_EQ(f.output.text(), "cu\nlost 1\nwhole\n");
}

TEST(LineQueue, WritesWhatWaitsBeforeItGoes) {
  Output output;
  {
    LineQueue queue(
        100, [&](std::string_view bytes) { return output.write(bytes); },
        [](uint64_t) { return ""; });
    queue.push("a");
    queue.push("b");
  }
  EXPECT_EQ(output.text(), "a\nb\n");
}

}  // namespace
}  // namespace llorch
