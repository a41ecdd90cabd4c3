#include "backends/cpu/quantised_panel.h"

#include <bit>
#include <cstring>

#include "ops/dtype.h"
#include "ops/unpack.h"

namespace llorch::cpu {
namespace {

constexpr int kGroups = kBlockColumns / 4;

const PanelBlock& layout_of(DType type) { return kPanelBlocks[static_cast<size_t>(type)]; }

// Four columns' codes, the first in the lowest byte.
using Group = uint32_t;

void load_groups(const uint8_t (&codes)[kBlockColumns], Group (&groups)[kGroups]) {
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(groups, codes, sizeof groups);
}

class PanelWriter {
 public:
  PanelWriter(DType type, const Kernels& kernels)
      : type_(type),
        layout_(layout_of(type)),
        rows_(static_cast<size_t>(kernels.panel_rows)),
        lanes_(static_cast<size_t>(kernels.lanes)) {}

  // One of ggml's blocks of a row, to `at`, where that block of all the panel's rows begins.
  void write(size_t row, const std::byte* block, int parts, std::byte* at) const {
    BlockScales scales{};
    if (layout_.header_bytes > 0) {
      scales = unpack_scales(type_, block);
      put_f16(at, row, scales.d);
      if (type_ != DType::kQ6_K) put_f16(at + 2 * rows_, row, scales.dmin);
      at += rows_ * static_cast<size_t>(layout_.header_bytes);
    }
    for (int part = 0; part < parts; ++part) {
      uint8_t codes[kBlockColumns];
      unpack_codes(type_, block, part, codes);
      write_codes(row, codes, at);
      at += rows_ * static_cast<size_t>(layout_.code_bytes);
      if (layout_.header_bytes == 0) {
        std::memcpy(at + 2 * row, block, sizeof(uint16_t));
      } else {
        const int of_part = type_ == DType::kQ6_K ? 2 * part : part;
        at[row] = std::byte{scales.scales[of_part]};
        at[rows_ + row] =
            std::byte{type_ == DType::kQ6_K ? scales.scales[of_part + 1] : scales.mins[part]};
      }
      at += rows_ * static_cast<size_t>(layout_.scale_bytes);
    }
  }

 private:
  static void put_f16(std::byte* at, size_t row, float value) {
    const uint16_t bits = f16_from_f32(value);
    std::memcpy(at + row * sizeof bits, &bits, sizeof bits);
  }

  void write_codes(size_t row, const uint8_t (&codes)[kBlockColumns], std::byte* at) const {
    Group groups[kGroups];
    load_groups(codes, groups);
    // A plane is a vector of Groups for each vector of the panel's rows.
    const size_t vector = row / lanes_, lane = row % lanes_;
    const auto put = [&](size_t planes, size_t plane, Group group) {
      std::memcpy(at + ((vector * planes + plane) * lanes_ + lane) * sizeof group, &group,
                  sizeof group);
    };
    if (layout_.bits == 8) {
      for (size_t g = 0; g < kGroups; ++g) put(kGroups, g, groups[g]);
      return;
    }
    for (size_t g = 0; g < kGroups / 2; ++g) {
      put(kGroups / 2, g, (groups[g] & 0x0F0F0F0F) | (groups[g + kGroups / 2] & 0x0F0F0F0F) << 4);
    }
    at += rows_ * 16;
    if (layout_.bits == 5) {
      Group fifth = 0;
      for (size_t g = 0; g < kGroups; ++g) fifth |= (groups[g] >> 4 & 0x01010101) << g;
      put(1, 0, fifth);
    }
    if (layout_.bits == 6) {
      Group upper[2] = {};
      for (size_t g = 0; g < kGroups; ++g) {
        upper[g / 4] |= (groups[g] >> 4 & 0x03030303) << (g % 4 * 2);
      }
      put(2, 0, upper[0]);
      put(2, 1, upper[1]);
    }
  }

  DType type_;
  PanelBlock layout_;
  size_t rows_, lanes_;
};

}  // namespace

int64_t quantised_panel_bytes(DType type, int64_t cols, int32_t panel_rows) {
  const PanelBlock& layout = layout_of(type);
  const int64_t blocks = cols / kBlockColumns;
  return panel_rows * (blocks * (layout.code_bytes + layout.scale_bytes) +
                       blocks / layout.blocks_per_header * layout.header_bytes);
}

void pack_quantised_panel(DType type, std::span<const std::byte* const> rows, int64_t cols,
                          const Kernels& kernels, std::byte* panel) {
  if (rows.size() < static_cast<size_t>(kernels.panel_rows)) {
    std::memset(panel, 0,
                static_cast<size_t>(quantised_panel_bytes(type, cols, kernels.panel_rows)));
  }
  const PanelWriter writer(type, kernels);
  const BlockLayout stored = block_layout(type);
  const int64_t bytes = quantised_panel_bytes(type, stored.values, kernels.panel_rows);
  // Block by block: what all rows write to stays in the cache.
  for (int64_t block = 0; block < cols / stored.values; ++block, panel += bytes) {
    for (size_t row = 0; row < rows.size(); ++row) {
      writer.write(row, rows[row] + block * stored.bytes, stored.values / kBlockColumns, panel);
    }
  }
}

}  // namespace llorch::cpu
