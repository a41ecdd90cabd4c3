// Places the tensors of a step in one memory by the lifetimes of their handles: first fit, so the
// same sequence of takes and gives always leads to the same offsets. Knows no memory, only numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace llorch {

class Arena {
 public:
  // Gives the lowest offset at which `size` units are free. Throws Error{kInternal} once fixed, if
  // they are not.
  uint64_t take(uint64_t size);
  // Frees what take() gave at `offset`.
  void give(uint64_t offset);
  // From now on no take() may reach beyond the highest unit used so far.
  void fix() { limit_ = peak_; }
  // Forgets limit and peak; nothing may be taken.
  void reset();
  // One more than the highest unit used so far.
  uint64_t peak() const { return peak_; }

 private:
  struct Piece {
    uint64_t offset, size;
  };
  std::vector<Piece> taken_;  // ascending
  uint64_t peak_ = 0;
  std::optional<uint64_t> limit_;
};

}  // namespace llorch
