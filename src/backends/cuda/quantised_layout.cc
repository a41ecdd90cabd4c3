#include "backends/cuda/quantised_layout.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "ops/dtype.h"
#include "ops/unpack.h"

namespace llorch::cuda {
namespace {

constexpr int kBlockColumns = 32, kBlocks = kUnitColumns / kBlockColumns;
constexpr size_t kGroups = 8, kLanes = 32;  // rows of a tile's half; of a warp

using Row = std::span<const std::byte* const>;

// A unit's codes, a byte each; of rows and columns that are not there zeros.
using UnitCodes = uint8_t[kPanelRows][kUnitColumns];

// The row's block that has columns 32 * index and on, and which 32 of its own they are.
const std::byte* block_of(DType type, const std::byte* row, int index, int* part) {
  const BlockLayout layout = block_layout(type);
  const int parts = layout.values / kBlockColumns;
  *part = index % parts;
  return row + int64_t{index / parts} * layout.bytes;
}

void read_unit(DType type, std::span<const std::byte* const> rows, int32_t cols, int32_t unit,
               UnitCodes& codes) {
  for (size_t row = 0; row < rows.size(); ++row) {
    for (int b = 0; b < kBlocks; ++b) {
      uint8_t* const to = codes[row] + b * kBlockColumns;
      const int index = unit * kBlocks + b;
      if (index * kBlockColumns >= cols) {
        std::memset(to, 0, kBlockColumns);
        continue;
      }
      int part = 0;
      const std::byte* const block = block_of(type, rows[row], index, &part);
      unpack_codes(type, block, part, *reinterpret_cast<uint8_t(*)[kBlockColumns]>(to));
    }
  }
}

// Codes c0 to c3 that a lane has of a row in one mma, c0 in the lowest byte.
using Four = uint32_t;

template <DType type>
Four four_of(const uint8_t* row, size_t b, size_t j, size_t t) {
  const size_t within = type == DType::kQ6_K ? 16 * j + 4 * t : 8 * t + 4 * j;
  static_assert(std::endian::native == std::endian::little);
  Four four;
  std::memcpy(&four, row + b * kBlockColumns + within, sizeof four);
  return four;
}

// c0, c2, c1, c3: pairs in the lower and the upper half of a word.
Four pairs_apart(Four four) {
  return (four & 0xff0000ffu) | (four >> 8 & 0x0000ff00u) | (four << 8 & 0x00ff0000u);
}

// c0 | c1 << 4 in the lowest byte, c2 | c3 << 4 in that of the upper half.
Four pairs_joined(Four four) { return (four | four >> 4) & 0x00ff00ffu; }

void put(std::byte* at, size_t word, uint32_t value) {
  std::memcpy(at + word * sizeof value, &value, sizeof value);
}

// One lane's codes of a tile and unit.
template <DType type>
void write_lane(const uint8_t* row0, const uint8_t* row1, size_t lane, std::byte* tile) {
  constexpr int kBits = panel_form(type).bits;
  const size_t t = lane % 4;
  uint32_t fifth = 0;
  for (size_t b = 0; b < kBlocks; ++b) {
    uint32_t upper = 0;
    for (size_t j = 0; j < 2; ++j) {
      const Four even = four_of<type>(row0, b, j, t), odd = four_of<type>(row1, b, j, t);
      if constexpr (kBits == 8) {
        constexpr Four kSign = type == DType::kQ8_0 ? 0x80808080u : 0;  // two's complement
        const Four low = even ^ kSign, high = odd ^ kSign;
        for (uint32_t k = 0; k < 2; ++k) {
          const uint32_t x = low >> (16 * k), y = high >> (16 * k);
          put(tile, (b * kLanes + lane) * 4 + 2 * j + k,
              (x & 0xff) | (y & 0xff) << 8 | (x & 0xff00) << 8 | (y & 0xff00) << 16);
        }
        continue;
      }
      const Four low = even & 0x0f0f0f0fu, high = odd & 0x0f0f0f0fu;
      const uint32_t word = type == DType::kIQ4_NL ? pairs_joined(low) | pairs_joined(high) << 8
                                                   : pairs_apart(low) | pairs_apart(high) << 4;
      put(tile, lane * 4 + 2 * b + j, word);
      if constexpr (kBits > 4) {
        const Four x = pairs_apart(even >> 4 & 0x03030303u),
                   y = pairs_apart(odd >> 4 & 0x03030303u);
        // Pair r = h + 2 k: bytes 0 and 2 are k = 0, bytes 1 and 3 are k = 1.
        if constexpr (kBits == 5) {
          const uint32_t bits = (x & 0x00010001u) | (y & 0x00010001u) << 1 |
                                (x & 0x01000100u) >> 6 | (y & 0x01000100u) >> 5;
          fifth |= bits << (4 * (2 * b + j));
        } else {
          const uint32_t bits = (x & 0x00030003u) | (y & 0x00030003u) << 2 |
                                (x & 0x03000300u) >> 4 | (y & 0x03000300u) >> 2;
          upper |= bits << (8 * j);
        }
      }
    }
    if constexpr (kBits == 6) put(tile + 512, lane * 2 + b, upper);
  }
  if constexpr (kBits == 5) put(tile + 512, lane, fifth);
}

template <DType type>
void write_codes(std::span<const std::byte* const> rows, int32_t cols, std::byte* panel) {
  UnitCodes codes{};
  for (int32_t unit = 0; unit < units_of(cols); ++unit) {
    read_unit(type, rows, cols, unit, codes);
    for (size_t tile = 0; tile < 2; ++tile, panel += panel_form(type).code_bytes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const size_t row = 4 * (lane / 4) + 2 * tile;
        write_lane<type>(codes[row], codes[row + 1], lane, panel);
      }
    }
  }
}

// Of a row: its blocks' scales in a unit, at [b][h] of a tile's 8 bytes for four columns of lanes,
// and its header, where a unit has one.
class ScaleWriter {
 public:
  ScaleWriter(DType type, int32_t cols) : type_(type), cols_(cols) {}

  void write(const std::byte* row, int32_t unit, size_t h, std::byte* scales,
             std::byte* header) const {
    if (panel_form(type_).header_bytes > 0) return write_k(row, unit, h, scales, header);
    for (size_t b = 0; b < kBlocks; ++b) {
      const int index = unit * kBlocks + static_cast<int>(b);
      if (index * kBlockColumns >= cols_) continue;
      int part = 0;
      std::memcpy(scales + (2 * b + h) * 2, block_of(type_, row, index, &part), 2);
    }
  }

 private:
  void write_k(const std::byte* row, int32_t unit, size_t h, std::byte* scales,
               std::byte* header) const {
    int part = 0;
    const BlockScales all = unpack_scales(type_, block_of(type_, row, unit * kBlocks, &part));
    const auto first = static_cast<size_t>(part);
    for (size_t b = 0; b < kBlocks; ++b) {
      if (type_ == DType::kQ6_K) {
        for (size_t j = 0; j < 2; ++j) {
          scales[4 * b + 2 * j + h] = std::byte{all.scales[2 * (first + b) + j]} ^ std::byte{0x80};
        }
      } else {
        scales[4 * b + 2 * h] = std::byte{all.scales[first + b]};
        scales[4 * b + 2 * h + 1] = std::byte{all.mins[first + b]};
      }
    }
    if (part != 0) return;
    const uint16_t units[2] = {f16_from_f32(all.d), f16_from_f32(all.dmin)};
    const size_t bytes = type_ == DType::kQ6_K ? 2 : 4;
    std::memcpy(header + h * bytes, units, bytes);
  }

  DType type_;
  int32_t cols_;
};

}  // namespace

void pack_panel_codes(DType type, std::span<const std::byte* const> rows, int32_t cols,
                      std::byte* panel) {
  CHECK(rows.size() <= kPanelRows);
  switch (type) {
    case DType::kQ8_0:
      return write_codes<DType::kQ8_0>(rows, cols, panel);
    case DType::kQ4_0:
      return write_codes<DType::kQ4_0>(rows, cols, panel);
    case DType::kQ4_K:
      return write_codes<DType::kQ4_K>(rows, cols, panel);
    case DType::kQ5_K:
      return write_codes<DType::kQ5_K>(rows, cols, panel);
    case DType::kQ6_K:
      return write_codes<DType::kQ6_K>(rows, cols, panel);
    case DType::kIQ4_NL:
      return write_codes<DType::kIQ4_NL>(rows, cols, panel);
    case DType::kF8E4M3:
      return write_codes<DType::kF8E4M3>(rows, cols, panel);
    default:
      CHECK(false);
  }
}

void pack_panel_scales(DType type, std::span<const std::byte* const> rows, int32_t cols,
                       std::byte* panel) {
  CHECK(rows.size() <= kPanelRows);
  std::memset(panel, 0, static_cast<size_t>(panel_scale_bytes(type, cols)));
  const auto header_bytes = static_cast<size_t>(panel_form(type).header_bytes);
  const ScaleWriter writer(type, cols);
  for (int32_t unit = 0; unit < units_of(cols); ++unit) {
    std::byte* const scales = panel + scales_offset(type, unit);
    for (size_t row = 0; row < rows.size(); ++row) {
      const size_t g = row / 4, tile = row / 2 % 2;
      // Of the first of its units; the others leave it alone.
      std::byte* const header =
          scales - 2 * header_bytes + tile * header_bytes + g * (header_bytes / kGroups);
      writer.write(rows[row], unit, row % 2, scales + tile * kScaleBytes + g * 8, header);
    }
  }
}

}  // namespace llorch::cuda
