// Attention of many rows: 128 pairs of a row and a query head share their tiles, or 64 where heads
// are so large that a warp's sums fill its registers.
#include "backends/cuda/attention_tiles.h"

namespace llorch::cuda {

int wide_pairs(int d) {
  return d <= 128 ? TensorShape<128, 4, 2>::kPairs : TensorShape<256, 4, 1>::kPairs;
}

void attend_wide(const Gpu& gpu, int d, const TileArgs& args) {
  switch (d) {
    case 32:
      return start_tiles<32, 4, 2, 3>(gpu, args);
    case 64:
      return start_tiles<64, 4, 2, 3>(gpu, args);
    case 96:
      return start_tiles<96, 4, 2, 2>(gpu, args);
    case 128:
      return start_tiles<128, 4, 2, 2>(gpu, args);
    default:
      return start_tiles<256, 4, 1, 2>(gpu, args);
  }
}

}  // namespace llorch::cuda
