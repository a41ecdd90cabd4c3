// Repacks a checkpoint's tensors into panels. Knows no op.
#include "backends/cpu/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "ops/dtype.h"

namespace llorch::cpu {
namespace {

// Columns that are repacked at once: a panel's part of them stays in the first-level cache.
constexpr int32_t kColumns = 128;

template <DType type>
using Element = std::conditional_t<type == DType::kF32, float, uint16_t>;

template <DType type>
float widened(Element<type> x) {
  if constexpr (type == DType::kF32) return x;
  if constexpr (type == DType::kF16) return f32_from_f16(x);
  if constexpr (type == DType::kBF16) return f32_from_bf16(x);
}

template <DType type>
Element<type> narrowed(float x) {
  if constexpr (type == DType::kF32) return x;
  if constexpr (type == DType::kF16) return f16_from_f32(x);
  if constexpr (type == DType::kBF16) return bf16_from_f32(x);
}

// `count` elements of a row to places `stride` apart.
template <DType from, DType to>
void spread(const std::byte* source, int32_t count, Element<to>* target, int32_t stride) {
  for (int32_t i = 0; i < count; ++i) {
    Element<from> x;
    std::memcpy(&x, source + static_cast<size_t>(i) * sizeof x, sizeof x);
    if constexpr (from == to) {
      target[static_cast<size_t>(i) * static_cast<size_t>(stride)] = x;
    } else {
      target[static_cast<size_t>(i) * static_cast<size_t>(stride)] = narrowed<to>(widened<from>(x));
    }
  }
}

template <DType to>
void spread_any(DType from, const std::byte* source, int32_t count, Element<to>* target,
                int32_t stride) {
  switch (from) {
    case DType::kF32:
      return spread<DType::kF32, to>(source, count, target, stride);
    case DType::kF16:
      return spread<DType::kF16, to>(source, count, target, stride);
    case DType::kBF16:
      return spread<DType::kBF16, to>(source, count, target, stride);
    case DType::kQ8_0:
      break;
  }
}

// Where bf16 products take split rows, a panel is rows of tiles: two columns side by side for each
// of 16 of the panel's rows, those of the next 16, then the next two columns.
size_t place_in_tiles(int32_t row, int32_t column, int32_t height) {
  constexpr int32_t kPairs = kSplitColumns / 2;
  return static_cast<size_t>(column / 2) * 2 * static_cast<size_t>(height) +
         static_cast<size_t>(row / kPairs * kSplitColumns + row % kPairs * 2 + column % 2);
}

// The place of a panel's row in each of its columns: kernels read 16-bit bfloats as pairs of
// vectors, whose elements alternate.
int32_t place_in_column(int32_t row, DType type, int32_t lanes) {
  if (type != DType::kBF16) return row;
  const int32_t pair = row / (2 * lanes) * 2 * lanes, within = row % (2 * lanes);
  return pair + (within < lanes ? 2 * within : 2 * (within - lanes) + 1);
}

class Packer {
 public:
  Packer(std::span<const RawTensor> parts, DType type, const Kernels& kernels,
         const PackedWeight& weight)
      : type_(type), kernels_(kernels), weight_(weight) {
    for (const RawTensor& part : parts) {
      const auto row_bytes = static_cast<size_t>(part.shape.cols) * size_bytes(part.type);
      for (int32_t row = 0; row < part.shape.rows; ++row) {
        rows_.push_back({part.bytes.data() + static_cast<size_t>(row) * row_bytes, part.type});
      }
    }
  }

  void pack_panel(int32_t panel) const {
    switch (type_) {
      case DType::kF32:
        return pack_panel_as<DType::kF32>(panel);
      case DType::kF16:
        return pack_panel_as<DType::kF16>(panel);
      case DType::kBF16:
        return pack_panel_as<DType::kBF16>(panel);
      case DType::kQ8_0:
        break;
    }
  }

 private:
  struct Row {
    const std::byte* data;
    DType type;
  };

  template <DType to>
  void pack_panel_as(int32_t panel) const {
    const PanelWeight& view = weight_.view;
    auto* target = reinterpret_cast<Element<to>*>(
        weight_.panels.data() + static_cast<size_t>(panel) * static_cast<size_t>(view.panel_bytes));
    const int32_t height = kernels_.panel_rows;
    const int32_t first = panel * height, valid = std::min(height, view.rows - first);
    const bool tiles = to == DType::kBF16 && kernels_.split_row != nullptr;
    if (valid < height || (tiles && view.cols % kSplitColumns != 0)) {
      std::memset(target, 0, static_cast<size_t>(view.panel_bytes));
    }
    for (int32_t column = 0; column < view.cols; column += kColumns) {
      const int32_t count = std::min(kColumns, view.cols - column);
      for (int32_t i = 0; i < valid; ++i) {
        const Row& row = rows_[static_cast<size_t>(first + i)];
        const std::byte* source = row.data + static_cast<size_t>(column) * size_bytes(row.type);
        if (tiles) {
          Element<to> values[kColumns];
          spread_any<to>(row.type, source, count, values, 1);
          for (int32_t k = 0; k < count; ++k) {
            target[place_in_tiles(i, column + k, height)] = values[k];
          }
          continue;
        }
        Element<to>* place = target + static_cast<size_t>(column) * static_cast<size_t>(height) +
                             place_in_column(i, to, kernels_.lanes);
        spread_any<to>(row.type, source, count, place, height);
      }
    }
  }

  DType type_;
  const Kernels& kernels_;
  const PackedWeight& weight_;
  std::vector<Row> rows_;
};

}  // namespace

PackedWeight pack_weight(std::span<const RawTensor> parts, std::span<const RawTensor> bias,
                         Shape shape, DType type, const Kernels& kernels, ThreadPool& pool) {
  PackedWeight weight;
  if (shape.rows == 1) {
    const auto values = to_f32(parts[0].bytes, parts[0].type, static_cast<size_t>(shape.cols));
    weight.panels = Memory(values.size() * sizeof(float), "weights");
    std::memcpy(weight.panels.data(), values.data(), values.size() * sizeof(float));
    return weight;
  }
  const int32_t panels = (shape.rows - 1) / kernels.panel_rows + 1;
  const auto padded_rows =
      static_cast<uint64_t>(panels) * static_cast<uint64_t>(kernels.panel_rows);
  weight.view.rows = shape.rows;
  weight.view.cols = shape.cols;
  int64_t columns = shape.cols;
  if (type == DType::kBF16 && kernels.split_row) {
    columns = (columns - 1) / kSplitColumns * kSplitColumns + kSplitColumns;
  }
  weight.view.panel_bytes = columns * kernels.panel_rows * static_cast<int64_t>(size_bytes(type));
  weight.panels = Memory(
      static_cast<uint64_t>(panels) * static_cast<uint64_t>(weight.view.panel_bytes), "weights");
  weight.view.panels = weight.panels.data();
  const Packer packer(parts, type, kernels, weight);
  pool.parallel_for(panels, [&packer](int panel, int) { packer.pack_panel(panel); });
  if (bias.empty()) return weight;
  weight.bias = Memory(padded_rows * sizeof(float), "weights");
  std::memset(weight.bias.data(), 0, weight.bias.bytes());
  float* target = weight.bias.as<float>();
  for (const RawTensor& part : bias) {
    // Rounded as the rows are: a checkpoint of one type has one for both.
    for (const float x : to_f32(part.bytes, part.type, static_cast<size_t>(part.shape.cols))) {
      *target++ = rounded(x, type);
    }
  }
  weight.view.bias = weight.bias.as<float>();
  return weight;
}

}  // namespace llorch::cpu
