#include "template/budget.h"

#include <algorithm>

#include "template/value.h"

namespace llorch::tmpl {
namespace {

constexpr uint64_t kSteps = 600'000;
constexpr uint64_t kBytes = uint64_t{64} << 20;
// Some published templates visit a message character by character.
constexpr uint64_t kStepsPerInputByte = 24;
constexpr uint64_t kMostSteps = 64'000'000;  // seconds
constexpr uint64_t kBytesPerInputByte = 16;

thread_local Budget* current = nullptr;

}  // namespace

Budget::Budget(size_t input_bytes)
    : steps_left_(kSteps + std::min(kStepsPerInputByte * input_bytes, kMostSteps)),
      bytes_left_(kBytes + kBytesPerInputByte * input_bytes),
      outer_(current) {
  current = this;
}

Budget::~Budget() { current = outer_; }

void spend_steps(uint64_t n) {
  if (current == nullptr) return;
  if (n > current->steps_left_) {
    current->steps_left_ = 0;
    throw Failure("the template runs for too long");
  }
  current->steps_left_ -= n;
}

void spend_bytes(uint64_t n) {
  if (current == nullptr) return;
  if (n > current->bytes_left_) {
    current->bytes_left_ = 0;
    throw Failure("the template makes too much text");
  }
  current->bytes_left_ -= n;
}

// About as long as a step takes, measured.
void spend_scan(uint64_t n) {
  constexpr uint64_t kBytesPerStep = 16;
  if (n >= kBytesPerStep) spend_steps(n / kBytesPerStep);
}

void check_fits(uint64_t n) {
  if (current != nullptr && n > current->bytes_left_) {
    throw Failure("the template makes too much text");
  }
}

}  // namespace llorch::tmpl
