// Repacks a checkpoint's tensors into panels. Knows no op.
#include "backends/cpu/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "backends/cpu/quantised_panel.h"
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
    default:
      CHECK(false);  // quantised rows stay what they are
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

// Two columns of a bf16 row lie side by side in a tile: words are copied as they are.
void spread_pairs(const std::byte* source, int32_t pairs, uint32_t* target, int32_t stride) {
  for (int32_t i = 0; i < pairs; ++i) {
    uint32_t pair;
    std::memcpy(&pair, source + static_cast<size_t>(i) * sizeof pair, sizeof pair);
    target[static_cast<size_t>(i) * static_cast<size_t>(stride)] = pair;
  }
}

class Packer {
 public:
  Packer(std::span<const RawTensor> parts, DType type, const Kernels& kernels,
         const PanelWeight& view)
      : type_(type), kernels_(kernels), view_(view) {
    for (const RawTensor& part : parts) {
      const uint64_t bytes = row_bytes(part.type, part.shape.cols);
      for (int32_t row = 0; row < part.shape.rows; ++row) {
        rows_.push_back(part.bytes.data() + static_cast<uint64_t>(row) * bytes);
        types_.push_back(part.type);
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
      default:
        return pack_quantised_panel(type_, rows_of(panel), view_.cols, kernels_, place_of(panel));
    }
  }

 private:
  std::span<const std::byte* const> rows_of(int32_t panel) const {
    const int32_t first = panel * kernels_.panel_rows;
    return std::span(rows_).subspan(
        static_cast<size_t>(first),
        static_cast<size_t>(std::min(kernels_.panel_rows, view_.rows - first)));
  }

  std::byte* place_of(int32_t panel) const {
    return const_cast<std::byte*>(view_.panels) + panel * view_.panel_bytes;
  }

  template <DType to>
  void pack_panel_as(int32_t panel) const {
    auto* target = reinterpret_cast<Element<to>*>(place_of(panel));
    const int32_t height = kernels_.panel_rows, first = panel * height;
    const auto rows = rows_of(panel);
    const auto valid = static_cast<int32_t>(rows.size());
    const bool tiles = to == DType::kBF16 && kernels_.split_row != nullptr;
    if (valid < height || (tiles && view_.cols % kSplitColumns != 0)) {
      std::memset(target, 0, static_cast<size_t>(view_.panel_bytes));
    }
    for (int32_t column = 0; column < view_.cols; column += kColumns) {
      const int32_t count = std::min(kColumns, view_.cols - column);
      for (int32_t i = 0; i < valid; ++i) {
        const DType from = types_[static_cast<size_t>(first + i)];
        const std::byte* source =
            rows[static_cast<size_t>(i)] + static_cast<size_t>(column) * size_bytes(from);
        if (tiles && from == DType::kBF16 && count % 2 == 0) {
          auto* words = reinterpret_cast<uint32_t*>(target) +
                        static_cast<size_t>(column / 2) * static_cast<size_t>(height) + i;
          spread_pairs(source, count / 2, words, height);
          continue;
        }
        if (tiles) {
          Element<to> values[kColumns];
          spread_any<to>(from, source, count, values, 1);
          for (int32_t k = 0; k < count; ++k) {
            target[place_in_tiles(i, column + k, height)] = values[k];
          }
          continue;
        }
        Element<to>* place = target + static_cast<size_t>(column) * static_cast<size_t>(height) +
                             place_in_column(i, to, kernels_.lanes);
        spread_any<to>(from, source, count, place, height);
      }
    }
  }

  DType type_;
  const Kernels& kernels_;
  const PanelWeight& view_;
  std::vector<const std::byte*> rows_;
  std::vector<DType> types_;
};

DType kept_as(const RawTensor& part, DType type) {
  return is_quantised(part.type) ? part.type : type;
}

int64_t panel_bytes(DType type, int64_t cols, const Kernels& kernels) {
  if (is_quantised(type)) return quantised_panel_bytes(type, cols, kernels.panel_rows);
  if (type == DType::kBF16 && kernels.split_row) {
    cols = (cols - 1) / kSplitColumns * kSplitColumns + kSplitColumns;
  }
  return cols * kernels.panel_rows * static_cast<int64_t>(size_bytes(type));
}

PackedRows pack_rows(std::span<const RawTensor> parts, DType type, int32_t first_row,
                     const Kernels& kernels, ThreadPool& pool) {
  PackedRows packed;
  packed.type = type;
  packed.first_row = first_row;
  PanelWeight& view = packed.view;
  for (const RawTensor& part : parts) view.rows += part.shape.rows;
  view.cols = parts[0].shape.cols;
  view.panel_bytes = panel_bytes(type, view.cols, kernels);
  const int32_t panels = (view.rows - 1) / kernels.panel_rows + 1;
  packed.panels =
      Memory(static_cast<uint64_t>(panels) * static_cast<uint64_t>(view.panel_bytes), "weights");
  view.panels = packed.panels.data();
  const Packer packer(parts, type, kernels, view);
  pool.parallel_for(panels, [&packer](int panel, int) { packer.pack_panel(panel); });
  return packed;
}

Memory pack_vector(const std::vector<float>& values, uint64_t padded_bytes) {
  Memory memory(padded_bytes, "weights");
  memory.commit();
  std::memcpy(memory.data(), values.data(), values.size() * sizeof(float));
  return memory;
}

}  // namespace

uint64_t PackedWeight::bytes() const {
  uint64_t total = vector_memory.bytes() + bias.bytes();
  for (const PackedRows& part : rows) total += part.panels.bytes();
  return total;
}

const PackedRows& PackedWeight::holding(int32_t row) const {
  size_t i = rows.size() - 1;
  while (rows[i].first_row > row) --i;
  return rows[i];
}

PackedWeight pack_weight(std::span<const RawTensor> parts, std::span<const RawTensor> bias,
                         Shape shape, DType type, const Kernels& kernels, ThreadPool& pool) {
  PackedWeight weight;
  if (shape.rows == 1) {
    const auto values = to_f32(parts[0].bytes, parts[0].type, static_cast<size_t>(shape.cols));
    weight.vector_memory = pack_vector(values, values.size() * sizeof(float));
    return weight;
  }
  int32_t row = 0;
  for (size_t first = 0, end = 0; first < parts.size(); first = end) {
    const DType kept = kept_as(parts[first], type);
    while (end < parts.size() && kept_as(parts[end], type) == kept) ++end;
    weight.rows.push_back(pack_rows(parts.subspan(first, end - first), kept, row, kernels, pool));
    row += weight.rows.back().view.rows;
  }
  if (bias.empty()) return weight;
  std::vector<float> values;
  for (size_t i = 0; i < bias.size(); ++i) {
    const auto cols = static_cast<size_t>(bias[i].shape.cols);
    // Rounded as the rows are: a checkpoint of one type has one for both.
    const DType as = is_quantised(parts[i].type) ? DType::kF32 : type;
    for (const float x : to_f32(bias[i].bytes, bias[i].type, cols))
      values.push_back(rounded(x, as));
  }
  // Kernels read it in whole panels, from the first row of any part.
  const auto padding = static_cast<size_t>(kernels.panel_rows);
  weight.bias = pack_vector(values, (values.size() + padding) * sizeof(float));
  for (PackedRows& part : weight.rows) {
    part.view.bias = weight.bias.as<float>() + part.first_row;
  }
  return weight;
}

}  // namespace llorch::cpu
