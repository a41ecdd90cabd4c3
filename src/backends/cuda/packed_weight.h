// Weights as they lie on the device, and how they get there. Knows no op.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backends/cuda/gpu.h"
#include "backends/cuda/kernels.h"
#include "base/error.h"
#include "ops/backend.h"

namespace llorch::cuda {

// Rows of a stacked weight that share a stored type.
struct PackedRows {
  int32_t first_row = 0;
  DeviceMemory values, scales;
  WeightRows view;  // of them, and of the bias
};

struct PackedWeight {
  std::vector<PackedRows> rows;  // of a vector: one row of f32, zeros behind it
  DeviceMemory bias;

  uint64_t bytes() const;
};

// Two pieces of pinned memory: while one is on its way to the device, threads fill the other.
class Uploader {
 public:
  explicit Uploader(const Gpu& gpu);

  // Brings rows [0, count) of `row_bytes` each to `device`, where they lie one after the other:
  // fill(first, end, to) writes rows first to end, from several threads at once. Done on return but
  // for the device's part, which the stream orders before what comes later.
  template <class Fill>
  void upload(std::byte* device, int64_t count, uint64_t row_bytes, Fill fill) {
    const auto together = static_cast<int64_t>(kPieceBytes / row_bytes);
    CHECK(together > 0);
    for (int64_t first = 0; first < count; first += together) {
      const int64_t end = std::min(count, first + together);
      std::byte* const piece = next_piece();
      const uint64_t bytes = static_cast<uint64_t>(end - first) * row_bytes;
      parallel(end - first, bytes, [&](int64_t begin, int64_t stop) {
        fill(first + begin, first + stop, piece + static_cast<uint64_t>(begin) * row_bytes);
      });
      send(device + static_cast<uint64_t>(first) * row_bytes, bytes);
    }
  }
  // Gives the pinned memory back until there is more to upload.
  void release();

 private:
  static constexpr uint64_t kPieceBytes = uint64_t{32} << 20;

  std::byte* next_piece();  // waits until the device has read what was in it
  void send(std::byte* device, uint64_t bytes);
  static void parallel(int64_t count, uint64_t bytes,
                       const std::function<void(int64_t, int64_t)>& body);

  struct Piece {
    PinnedMemory memory;
    std::unique_ptr<Event> sent;
  };
  const Gpu& gpu_;
  Piece pieces_[2];
  int current_ = 0;
};

// As Backend::pack() describes. Throws OutOfMemory.
PackedWeight pack_weight(const Gpu& gpu, Uploader& uploader, std::span<const RawTensor> parts,
                         std::span<const RawTensor> bias, Shape shape, DType type);

}  // namespace llorch::cuda
