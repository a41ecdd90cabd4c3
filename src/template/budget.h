// How much one render may do. A template is a program from a stranger: every step and every byte it
// makes is counted here, and what goes beyond ends in a Failure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llorch::tmpl {

// The budget of this thread's render, from construction to destruction. Where there is none (a
// template being parsed) nothing is counted.
class Budget {
 public:
  // Both limits grow with the input, so that a long conversation may be rendered.
  explicit Budget(size_t input_bytes);
  ~Budget();
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

 private:
  friend void spend_steps(uint64_t n);
  friend void spend_bytes(uint64_t n);
  friend void check_fits(uint64_t n);
  uint64_t steps_left_, bytes_left_;
  Budget* outer_;
};

// Each throws Failure once the budget is used up.
void spend_steps(uint64_t n);  // n evaluations, comparisons, elements visited
void spend_bytes(uint64_t n);  // n bytes copied or made
void spend_scan(uint64_t n);   // n bytes read one by one
void check_fits(uint64_t n);   // would spend_bytes(n) pass? To be asked before an allocation.

}  // namespace llorch::tmpl
