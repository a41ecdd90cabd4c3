// A tile of a product with bf16 or f16 weights, computed by one block: weights and x come through a
// ring of stages in shared memory, asynchronously, and meet in mma_bf16 or mma_f16.
//
// Arithmetic, the same in every shape of tile: an output is one f32 accumulator, to which the
// products of 16 columns are added at a time, from column 0 to padded_columns(cols) - 1.
#pragma once

#include "backends/cuda/product_blocks.h"

namespace llorch::cuda {

// Warps form a grid of RowWarps x TokenWarps; each has RowTiles x 16 weight rows and TokenTiles x 8
// tokens. A stage has Columns of each row; there are Stages of them. A Plain tile saves registers:
// it knows no experts and no gathered rows, and is full. The last ones overlap those before, and
// write the same bits.
template <int RowTiles, int TokenTiles, int RowWarps, int TokenWarps, int Columns, int Stages,
          bool Plain = false>
struct TileShape {
  static constexpr bool kPlain = Plain;
  static constexpr int kRowTiles = RowTiles, kTokenTiles = TokenTiles;
  static constexpr int kTokenWarps = TokenWarps;
  static constexpr int kColumns = Columns, kStages = Stages;
  static constexpr int kThreads = kWarp * RowWarps * TokenWarps;
  static constexpr int kRows = 16 * RowTiles * RowWarps;
  static constexpr int kTokens = 8 * TokenTiles * TokenWarps;
  static constexpr int kSteps = Columns / 16;
  static constexpr int kChunks = Columns / 8;  // of 16 bytes, in a row of a stage
  static constexpr int kRowBytes = kColumns * 2;
  static constexpr int kStageBytes = (kRows + kTokens) * kRowBytes;
  // What a thread copies of a stage: a chunk of every so many rows, x's behind the weights'.
  static constexpr int kCopyRows = kThreads / kChunks;
  static constexpr int kWeightCopies = kRows / kCopyRows;
  static constexpr int kTokenCopies = kTokens / kCopyRows;
  static constexpr int kCopies = kWeightCopies + kTokenCopies;
  static constexpr int kEarlyStages = Stages / 2;  // whose weights are asked for before x is there
  static constexpr size_t kSharedBytes = Stages * kStageBytes;

  static_assert(Columns == kColumnStep || Columns == 2 * kColumnStep);
  static_assert(Stages >= 3 && kRows % kCopyRows == 0 && kTokens % kCopyRows == 0);
  static_assert(kCopies <= 32);
  static_assert((kCopyRows & (kCopyRows - 1)) == 0, "see copy()");
  static_assert(TokenTiles == 1 || TokenTiles % 2 == 0);
};

// Chunks of a row of a stage lie at their index ^ row % 8, so that neither copies nor matrix loads
// meet in a bank. Offsets are in bytes.
template <class Shape, DType kType>
class Tile {
 public:
  __device__ Tile(const ProductParams& p, const BlockWork& work)
      : args_(p.args),
        work_(work),
        first_row_(work.first_row),
        row_bytes_(static_cast<uint32_t>(p.columns) * 2),
        ring_(dynamic_shared<std::byte>()),
        copy_row_(threadIdx.x / Shape::kChunks) {
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    row_of_warp_ = warp / Shape::kTokenWarps * Shape::kRowTiles * 16;
    token_of_warp_ = warp % Shape::kTokenWarps * Shape::kTokenTiles * 8;
    weights_at_ = (row_of_warp_ + lane % 16) * Shape::kRowBytes + ((lane / 16) ^ (lane % 8)) * 16;
    const uint32_t token = token_of_warp_ + lane % 8 + (Shape::kTokenTiles > 1 ? lane / 16 * 8 : 0);
    x_at_ = (Shape::kRows + token) * Shape::kRowBytes + ((lane / 8 % 2) ^ (lane % 8)) * 16;
  }

  // Tokens `first` up to `end`, no more than the tile has. Nothing may still read the ring.
  __device__ void run(int32_t first, int32_t end) {
    first_ = first;
    end_ = end;
    if constexpr (Shape::kPlain) {
      first_row_ = min(first_row_, args_.w.rows - Shape::kRows);
      first_ = min(first_, args_.m - Shape::kTokens);
    }
    begin_copies();
    fill_ring();
    clear_sums();
    copy_async_wait<Shape::kStages - 2>();
    sync_block();
    load_x(0, 0);
    load_weights(0, 0, 0);
    uint32_t from = 0;  // the slot in use
    for (uint32_t column = 0; column < row_bytes_; column += Shape::kRowBytes) {
      add_stage(column, from);
      from = next(from);
    }
    copy_async_wait<0>();
    store();
  }

 private:
  static constexpr uint32_t kRingBytes = Shape::kStages * Shape::kStageBytes;

  static __device__ uint32_t next(uint32_t slot) {
    return slot + Shape::kStageBytes >= kRingBytes ? slot + Shape::kStageBytes - kRingBytes
                                                   : slot + Shape::kStageBytes;
  }

  __device__ void clear_sums() {
#pragma unroll
    for (int r = 0; r < Shape::kRowTiles; ++r) {
#pragma unroll
      for (int t = 0; t < Shape::kTokenTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums_[r][t][i] = 0;
      }
    }
  }

  // This thread's copies of stage 0.
  __device__ void begin_copies() {
    const uint32_t chunk = threadIdx.x % Shape::kChunks;
    copy_swizzle_ = chunk ^ (copy_row_ % 8);
    copy_to_ = copy_row_ * Shape::kRowBytes;
    // A multiple of 8 rows further the swizzle is the same.
    if constexpr (Shape::kCopyRows % 8 == 0) copy_to_ += copy_swizzle_ * 16;
    copy_column_ = chunk * 16;
    const auto row = static_cast<uint32_t>(first_row_) + copy_row_;
    copy_from_ = work_.values + row * size_t{row_bytes_} + copy_column_;
    copy_x_ = reinterpret_cast<const std::byte*>(args_.x.rounded) + copy_column_;
    if constexpr (Shape::kPlain) {
      copy_x_ += (static_cast<uint32_t>(first_) + copy_row_) * size_t{row_bytes_};
    } else {
      find_copies();
    }
  }

  // Which of them there are.
  __device__ void find_copies() {
    there_ = 0;
#pragma unroll
    for (int i = 0; i < Shape::kCopies; ++i) {
      const int32_t of_tile = static_cast<int32_t>(copy_row_) + i * Shape::kCopyRows;
      const bool there = i < Shape::kWeightCopies ? first_row_ + of_tile < args_.w.rows
                                                  : first_ + of_tile - Shape::kRows < end_;
      there_ |= static_cast<uint32_t>(there) << i;
    }
  }

  // Where their rows of x are, once it is there.
  __device__ void find_sources() {
#pragma unroll
    for (int i = 0; i < Shape::kTokenCopies; ++i) {
      if (!is_there(Shape::kWeightCopies + i)) continue;
      const int32_t token = first_ + static_cast<int32_t>(copy_row_) + i * Shape::kCopyRows;
      copy_sources_[i] = static_cast<uint32_t>(source_row(args_, token)) * (row_bytes_ / 16);
    }
  }

  __device__ bool is_there(int i) const { return (there_ >> i & 1) != 0; }
  __device__ size_t copy_stride() const { return Shape::kCopyRows * row_bytes_; }

  __device__ void next_copies() {
    copy_to_ = next(copy_to_);
    copy_from_ += Shape::kRowBytes;
    copy_x_ += Shape::kRowBytes;
  }

  template <int kFirst, int kLast>
  __device__ void copy_some(uint32_t column) const {
#pragma unroll
    for (int i = kFirst; i < kLast; ++i) copy(i, column);
  }

  // All stages but one are asked for, those of the first half in one group.
  __device__ void fill_ring() {
    uint32_t column = 0;
    constexpr uint32_t kEarly = Shape::kEarlyStages * Shape::kRowBytes;
#pragma unroll 1
    for (; column < kEarly; column += Shape::kRowBytes) {
      copy_some<0, Shape::kWeightCopies>(column);
      next_copies();
    }
    wait_for_previous();
    if constexpr (!Shape::kPlain) find_sources();
    copy_x_ -= kEarly;
    copy_to_ -= Shape::kEarlyStages * Shape::kStageBytes;
#pragma unroll 1
    for (column = 0; column < kEarly; column += Shape::kRowBytes) {
      copy_some<Shape::kWeightCopies, Shape::kCopies>(column);
      copy_x_ += Shape::kRowBytes;
      copy_to_ += Shape::kStageBytes;
    }
    // As many groups as stages: stage s is there when s + 1 groups are.
#pragma unroll
    for (int s = 0; s < Shape::kEarlyStages; ++s) copy_async_commit();
#pragma unroll 1
    for (; column < (Shape::kStages - 1) * Shape::kRowBytes; column += Shape::kRowBytes) {
      copy_some<0, Shape::kCopies>(column);
      copy_async_commit();
      next_copies();
    }
  }

  // Copy `i` of this thread's share of the stage at `column`. Rows and tokens that are not there
  // stay whatever they are: no other's output sees them.
  __device__ void copy(int i, uint32_t column) const {
    if constexpr (Shape::kPlain) {
      if (column >= row_bytes_) return;
    } else {
      if (column + copy_column_ >= row_bytes_ || !is_there(i)) return;
    }
    const int skipped = i * Shape::kCopyRows;  // a power of two that is above all copy_row_
    std::byte* to = ring_ + copy_to_ + skipped * Shape::kRowBytes;
    if constexpr (Shape::kCopyRows % 8 != 0) {
      to += (copy_swizzle_ ^ static_cast<uint32_t>(skipped % 8)) * 16;
    }
    const int x = i - Shape::kWeightCopies;
    if (x < 0) {
      copy_async_16(to, copy_from_ + copy_stride() * static_cast<uint32_t>(i));
    } else if constexpr (Shape::kPlain) {
      copy_async_16(to, copy_x_ + copy_stride() * static_cast<uint32_t>(x));
    } else {
      copy_async_16(to, copy_x_ + copy_sources_[x] * size_t{16});
    }
  }

  // x of a step of 16 columns, into one of two sets of fragments.
  __device__ void load_x(uint32_t slot, int step) {
    const std::byte* const x = ring_ + slot + (x_at_ ^ static_cast<uint32_t>(step * 32));
    auto& to = x_fragments_[step % 2];
    if constexpr (Shape::kTokenTiles == 1) {
      load_matrix_x2(to[0], x);
    } else {
#pragma unroll
      for (int t = 0; t < Shape::kTokenTiles; t += 2) {
        uint32_t both[4];
        load_matrix_x4(both, x + t * 8 * Shape::kRowBytes);
        to[t][0] = both[0];
        to[t][1] = both[1];
        to[t + 1][0] = both[2];
        to[t + 1][1] = both[3];
      }
    }
  }

  // The weights of one row tile in a step, into one of two fragments.
  __device__ void load_weights(uint32_t slot, int step, int tile) {
    const uint32_t at = weights_at_ ^ static_cast<uint32_t>(step * 32);
    load_matrix_x4(weight_fragments_[(step * Shape::kRowTiles + tile) % 2],
                   ring_ + slot + at + tile * 16 * Shape::kRowBytes);
  }

  __device__ void multiply(int step, int tile) {
    auto& sums = sums_[tile];
    const auto& w = weight_fragments_[(step * Shape::kRowTiles + tile) % 2];
    const auto& x = x_fragments_[step % 2];
#pragma unroll
    for (int t = 0; t < Shape::kTokenTiles; ++t) {
      if constexpr (kType == DType::kF16) {
        mma_f16(sums[t], w, x[t]);
      } else {
        mma_bf16(sums[t], w, x[t]);
      }
    }
  }

  // Adds the stage at `column`, which lies in slot `from`, while the one Stages - 1 further is
  // asked for. Fragments are loaded one tile ahead, across steps and stages, so that nothing
  // stands between one mma and the next.
  __device__ void add_stage(uint32_t column, uint32_t from) {
#pragma unroll
    for (int step = 0; step < Shape::kSteps; ++step) {
#pragma unroll
      for (int tile = 0; tile < Shape::kRowTiles; ++tile) {
        if (tile + 1 < Shape::kRowTiles) {
          load_weights(from, step, tile + 1);
        } else if (step + 1 < Shape::kSteps) {
          load_x(from, step + 1);
          load_weights(from, step + 1, 0);
        } else {
          copy_async_wait<Shape::kStages - 3>();
          sync_block();  // the next stage is there, and nobody reads this one any more
          load_x(next(from), 0);
          load_weights(next(from), 0, 0);
        }
        if (tile == 0) {
#pragma unroll
          for (int i = step * Shape::kCopies / Shape::kSteps;
               i < (step + 1) * Shape::kCopies / Shape::kSteps; ++i) {
            copy(i, column + (Shape::kStages - 1) * Shape::kRowBytes);
          }
        }
        // The last stage may be half a one.
        if (step * 16 < kColumnStep || column + kColumnStep * 2 < row_bytes_) multiply(step, tile);
      }
    }
    copy_async_commit();
    next_copies();
  }

  __device__ void store() const {
    const uint32_t lane = threadIdx.x % kWarp;
    const auto row_of_lane = static_cast<int32_t>(row_of_warp_ + lane / 4);
    const auto token_of_lane = static_cast<int32_t>(token_of_warp_ + lane % 4 * 2);
#pragma unroll
    for (int r = 0; r < Shape::kRowTiles * 2; ++r) {
      const int32_t row = first_row_ + row_of_lane + r * 8;
      if (!Shape::kPlain && row >= args_.w.rows) continue;
      const float bias = work_.bias ? work_.bias[row] : 0.0f;
#pragma unroll
      for (int t = 0; t < Shape::kTokenTiles * 2; ++t) {
        const int32_t token = first_ + token_of_lane + t / 2 * 8 + t % 2;
        if (!Shape::kPlain && token >= end_) continue;
        args_.out[token * args_.out_stride + row] =
            work_.bias ? sums_[r / 2][t / 2][r % 2 * 2 + t % 2] + bias
                       : sums_[r / 2][t / 2][r % 2 * 2 + t % 2];
      }
    }
  }

  const ProductArgs& args_;
  const BlockWork& work_;
  int32_t first_row_;
  const uint32_t row_bytes_;  // of the weight, and of x
  std::byte* const ring_;
  int32_t first_ = 0, end_ = 0;
  uint32_t row_of_warp_, token_of_warp_;
  // What this lane names in matrix loads of step 0, in a stage; of step s it is this ^ 32 s.
  uint32_t weights_at_, x_at_;
  // Of this thread's copies: their first row and byte of a row; then, of the stage that comes next,
  // where it goes in the ring, and from where.
  const uint32_t copy_row_;
  uint32_t copy_column_, copy_swizzle_, copy_to_;
  const std::byte* copy_from_;  // in the weight
  const std::byte* copy_x_;     // in x: of the first row, or of this thread's if Plain
  uint32_t there_;              // bit i: what copy i brings is there
  uint32_t copy_sources_[Shape::kTokenCopies];  // if not: where the rows of x begin, in 16 bytes
  float sums_[Shape::kRowTiles][Shape::kTokenTiles][4];
  uint32_t weight_fragments_[2][4], x_fragments_[2][Shape::kTokenTiles][2];
};

}  // namespace llorch::cuda
