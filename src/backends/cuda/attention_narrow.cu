// Attention of few pairs of a row and a query head: a warp takes 16 of them, and shares its tiles
// with nobody.
#include "backends/cuda/attention_tiles.h"

namespace llorch::cuda {

int narrow_pairs() { return TensorShape<32, 1, 1>::kPairs; }

void attend_narrow(const Gpu& gpu, int d, const TileArgs& args) {
  switch (d) {
    case 32:
      return start_tiles<32, 1, 1, 1>(gpu, args);
    case 64:
      return start_tiles<64, 1, 1, 1>(gpu, args);
    case 96:
      return start_tiles<96, 1, 1, 1>(gpu, args);
    case 128:
      return start_tiles<128, 1, 1, 1>(gpu, args);
    default:
      return start_tiles<256, 1, 1, 1>(gpu, args);
  }
}

}  // namespace llorch::cuda
