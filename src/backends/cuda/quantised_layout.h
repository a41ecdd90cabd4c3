// Quantised weights as they lie on the device: what the host writes and kernels read. Knows how
// ggml's blocks are stored, and no kernel.
//
// A panel is 32 rows, two tiles of 16; row 4 g + 2 i + h of it is row g + 8 h of tile i, as
// mma_bf16 counts the rows of A: what a lane computes are rows side by side. A unit is 64 columns,
// the last one of a row filled up with zero scales. Rows behind the last are zeros.
//
// In a block of 32 columns, lane 4 g + t of a warp takes eight: of the first mma 8 t to 8 t + 3, of
// the second the next four; of q6_k 4 t to 4 t + 3, and the same 16 columns further, as there each
// mma's 16 columns have a scale of their own. x meets them in the same order.
//
//   codes   [panel][unit][tile], PanelForm::code_bytes each. Two codes of a row side by side are a
//           pair; mma j of block b has four pairs, r = h + 2 k, where k tells the first pair of a
//           row from the second:
//     4 bits  [lane] 16 bytes, the words 2 b + j: pair r in bits 4 r and 16 + 4 r; of iq4_nl in
//             byte r
//     5 bits  behind those [lane] a word, pair 4 (2 b + j) + r in bits p and 16 + p
//     6 bits  behind the first four [lane][b] a word, pair p = 4 j + r in bits 2 p and 16 + 2 p
//     8 bits  [b][lane] 16 bytes, the words 2 j + k: row h in bytes h and 2 + h
//   scales  [panel][unit][tile][g] 8 bytes: [b][h] f16; of q4_k and q5_k [b][h] scale and minimum,
//   a
//           byte each; of q6_k [b][j][h] scale + 128, a byte each. Where blocks have 256 columns,
//           before each four units a header, [tile][g][h]: f16 d, and dmin (not q6_k)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/backend.h"

namespace llorch::cuda {

constexpr int32_t kTileRows = 16, kPanelRows = 32;
constexpr int32_t kUnitColumns = 64, kHeaderUnits = 4;
constexpr int32_t kScaleBytes = 64;  // of a tile and unit

struct PanelForm {
  int32_t bits;          // of a code
  int32_t code_bytes;    // of a tile and unit
  int32_t header_bytes;  // of a tile and four units; 0: there is none
};
constexpr PanelForm panel_form(DType type) {
  switch (type) {
    case DType::kQ4_K:
      return {4, 512, 64};
    case DType::kQ5_K:
      return {5, 640, 64};
    case DType::kQ6_K:
      return {6, 768, 32};
    case DType::kQ8_0:
    case DType::kF8E4M3:
      return {8, 1024, 0};
    default:  // q4_0, iq4_nl
      return {4, 512, 0};
  }
}

// The same as numbers that kernels can name.
template <DType type>
struct Panel {
  static constexpr int32_t kBits = panel_form(type).bits;
  static constexpr int32_t kCodeBytes = panel_form(type).code_bytes;
  static constexpr int32_t kHeaderBytes = panel_form(type).header_bytes;
};

constexpr int32_t panels_of(int32_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
constexpr int32_t units_of(int32_t cols) { return (cols + kUnitColumns - 1) / kUnitColumns; }
// Where a unit's scales begin in its panel's: behind its header, if it has one.
constexpr int64_t scales_offset(DType type, int32_t unit) {
  const int32_t headers = panel_form(type).header_bytes > 0 ? unit / kHeaderUnits + 1 : 0;
  return int64_t{unit} * 2 * kScaleBytes + int64_t{headers} * 2 * panel_form(type).header_bytes;
}
constexpr int64_t panel_code_bytes(DType type, int32_t cols) {
  return int64_t{units_of(cols)} * 2 * panel_form(type).code_bytes;
}
constexpr int64_t panel_scale_bytes(DType type, int32_t cols) {
  const int32_t units = units_of(cols), headers = (units + kHeaderUnits - 1) / kHeaderUnits;
  return int64_t{units} * 2 * kScaleBytes + int64_t{headers} * 2 * panel_form(type).header_bytes;
}

// Sums over the columns are sums of slices', in order. How many there are follows from the weight's
// shape alone: as many as keep a large device busy with few rows of x, of 512 columns at least.
struct Slices {
  int32_t count, units;  // units of each, whole headers; the last may have fewer
};
constexpr Slices slices_of(int32_t rows, int32_t cols) {
  constexpr int32_t kMost = 8, kEnoughWarps = 1024, kLeastUnits = 8;
  const int32_t units = units_of(cols);
  int32_t count = 1;
  while (count < kMost && panels_of(rows) * count < kEnoughWarps &&
         units >= 2 * count * kLeastUnits) {
    count *= 2;
  }
  const int32_t headers = (units + kHeaderUnits - 1) / kHeaderUnits;
  const int32_t each = (headers + count - 1) / count * kHeaderUnits;
  return {(units + each - 1) / each, each};
}

// Write one panel: its `rows`, at most kPanelRows of them, each cols / block_layout(type).values of
// the type's blocks, which stay the values that they are. Any thread, any alignment of the rows;
// `panel` is aligned to 16 bytes, and every byte of it is written.
void pack_panel_codes(DType type, std::span<const std::byte* const> rows, int32_t cols,
                      std::byte* panel);
void pack_panel_scales(DType type, std::span<const std::byte* const> rows, int32_t cols,
                       std::byte* panel);

}  // namespace llorch::cuda
