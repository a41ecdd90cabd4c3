#include "server/turns.h"

#include <boost/asio/post.hpp>

namespace llorch {

void Turns::add(std::function<void()> turn) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(turn));
    if (std::exchange(giving_, true)) return;
  }
  boost::asio::post(context_, [this] { give(); });
}

void Turns::give() {
  for (size_t i = 0; i < kAtOnce; ++i) {
    std::function<void()> turn;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty()) {
        giving_ = false;
        return;
      }
      turn = std::move(waiting_.front());
      waiting_.pop_front();
    }
    turn();
  }
  // Behind what the turns have posted, and behind a look at the sockets.
  boost::asio::post(context_, [this] { give(); });
}

}  // namespace llorch
