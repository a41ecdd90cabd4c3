// First-fit placement. Knows no memory.
#include "backends/common/arena.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace llorch {

uint64_t Arena::take(uint64_t size) {
  uint64_t offset = 0;
  auto next = taken_.begin();
  while (next != taken_.end() && next->offset - offset < size) {
    offset = next->offset + next->size;
    ++next;
  }
  if (limit_ && offset + size > *limit_) {
    throw Error(ErrorCode::kInternal, "[arena] " + std::to_string(size) + " units at " +
                                          std::to_string(offset) + " pass the limit of " +
                                          std::to_string(*limit_));
  }
  taken_.insert(next, {offset, size});
  peak_ = std::max(peak_, offset + size);
  return offset;
}

void Arena::give(uint64_t offset) {
  const auto piece = std::find_if(taken_.begin(), taken_.end(),
                                  [offset](const Piece& p) { return p.offset == offset; });
  CHECK(piece != taken_.end());
  taken_.erase(piece);
}

void Arena::reset() {
  CHECK(taken_.empty());
  peak_ = 0;
  limit_.reset();
}

}  // namespace llorch
