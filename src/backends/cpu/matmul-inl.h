// Rows times packed panels. Every output is a sum over columns in blocks of kSumColumns: within a
// block one column after the other, then block after block. That order is the same for every number
// of rows and every split, so a row's result never depends on what else is in the step.
#pragma once

#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

// How far ahead of its use a weight is asked for. With several rows the processor itself does not
// see far enough ahead (measured on Zen 3).
constexpr int kPrefetchBytes = 1024;

// Which weights a tile asks for while it computes.
struct NextBytes {  // of its own panel
  template <class Element>
  HWY_INLINE void fetch(const Element* column, int64_t) const {
    __builtin_prefetch(column + kPrefetchBytes / sizeof(Element));
  }
};
struct Share {  // of the block that comes next: `step` bytes with each column
  const std::byte* from;
  int64_t step;
  template <class Element>
  HWY_INLINE void fetch(const Element*, int64_t k) const {
    __builtin_prefetch(from + k * step);
  }
};

// sums[p][i] (+)= x[i][0 .. count) times panel p's columns; M rows and P panels in registers.
template <class Stored, int M, int P, class Ahead>
HWY_INLINE void multiply_tile(const float* const* x, int64_t column, int count,
                              const typename Stored::Element* const* panels, float* const* sums,
                              bool first, Ahead ahead) {
  Vec acc[P][M][kPanelVectors];
  for (int p = 0; p < P; ++p) {
    for (int i = 0; i < M; ++i) {
      for (int v = 0; v < kPanelVectors; ++v) acc[p][i][v] = zero();
    }
  }
  const float* rows[M];
  for (int i = 0; i < M; ++i) rows[i] = x[i] + column;
  for (int64_t k = 0; k < count; ++k) {
    Vec w[P][kPanelVectors];
    for (int p = 0; p < P; ++p) {
      ahead.fetch(panels[p] + k * kPanelRows, k);
      Stored::load_panel(panels[p] + k * kPanelRows, w[p]);
    }
    for (int i = 0; i < M; ++i) {
      const Vec a = set(rows[i][k]);
      for (int p = 0; p < P; ++p) {
        for (int v = 0; v < kPanelVectors; ++v) {
          acc[p][i][v] = hn::MulAdd(a, w[p][v], acc[p][i][v]);
        }
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int i = 0; i < M; ++i) {
      for (int v = 0; v < kPanelVectors; ++v) {
        float* sum = sums[p] + i * kPanelRows + v * kLanes;
        store(first ? acc[p][i][v] : hn::Add(load(sum), acc[p][i][v]), sum);
      }
    }
  }
}

// The same for m <= kMaxRows rows, P panels.
template <class Stored, int P, class Ahead>
HWY_NOINLINE void multiply_rows(int m, const float* const* x, int64_t column, int count,
                                const typename Stored::Element* const* panels, float* const* sums,
                                bool first, Ahead ahead) {
  switch (m) {
    case 1:
      return multiply_tile<Stored, 1, P>(x, column, count, panels, sums, first, ahead);
    case 2:
      return multiply_tile<Stored, 2, P>(x, column, count, panels, sums, first, ahead);
    case 3:
      return multiply_tile<Stored, 3, P>(x, column, count, panels, sums, first, ahead);
  }
  if constexpr (P == 1) {
    switch (m) {
      case 4:
        return multiply_tile<Stored, 4, 1>(x, column, count, panels, sums, first, ahead);
      case 5:
        return multiply_tile<Stored, 5, 1>(x, column, count, panels, sums, first, ahead);
      default:
        return multiply_tile<Stored, 6, 1>(x, column, count, panels, sums, first, ahead);
    }
  }
}

// Rows of each tile when m are shared out evenly: 8 are faster as 4 + 4 than as 6 + 2.
HWY_INLINE int tile_height(int m) {
  const int tiles = (m + kMaxRows - 1) / kMaxRows;
  return (m + tiles - 1) / tiles;
}

// Bias and softcap, and from the panel's sums to the rows of the result.
void finish_panel(const Matmul& args, int panel, int first_row, int rows, const float* sums) {
  const int column = panel * kPanelRows;
  const int valid = min_of(kPanelRows, args.w.rows - column);
  for (int i = 0; i < rows; ++i) {
    float* out = args.out + (first_row + i) * args.out_stride + column;
    float padded[kPanelRows];
    float* target = valid == kPanelRows ? out : padded;
    for (int v = 0; v < kPanelVectors; ++v) {
      Vec sum = load(sums + i * kPanelRows + v * kLanes);
      if (args.w.bias) sum = hn::Add(sum, load(args.w.bias + column + v * kLanes));
      if (args.softcap > 0) sum = soft_capped(sum, args.softcap);
      store(sum, target + v * kLanes);
    }
    for (int c = 0; target == padded && c < valid; ++c) out[c] = padded[c];
  }
}

// Columns [k, k + width) of P panels times all rows of a block of at most kBlockRows.
template <class Stored, int P>
HWY_INLINE void multiply_block(const Matmul& args, int panel, int row, int rows, int64_t k,
                               float* block_sums) {
  using Element = typename Stored::Element;
  const int width = min_of(kSumColumns, static_cast<int>(args.w.cols - k));
  const Element* columns[P];
  for (int p = 0; p < P; ++p) {
    const std::byte* data = args.w.panels + (panel + p) * args.w.panel_bytes;
    columns[p] = reinterpret_cast<const Element*>(data) + k * kPanelRows;
  }
  const int height = tile_height(rows);
  // With few rows the tiles share out the columns that come next: else only the first of them,
  // which meets weights that are not in the cache yet, would keep memory busy.
  constexpr int64_t kColumnBytes = kPanelRows * sizeof(Element);
  const auto* next = reinterpret_cast<const std::byte*>(columns[0]) + width * kColumnBytes;
  Share share{next, kColumnBytes * height / rows};
  for (int i = 0; i < rows; i += height, share.from += width * share.step) {
    float* sums[P];
    for (int p = 0; p < P; ++p) sums[p] = block_sums + (p * kBlockRows + i) * kPanelRows;
    const int m = min_of(height, rows - i);
    if (P == 1 && args.m <= kFewRows && rows > height) {
      multiply_rows<Stored, P>(m, args.x + row + i, k, width, columns, sums, k == 0, share);
    } else {
      multiply_rows<Stored, P>(m, args.x + row + i, k, width, columns, sums, k == 0, NextBytes());
    }
  }
}

// A block of rows meets the panels [first, last).
template <class Stored>
void multiply_panels(const Matmul& args, int first, int last, int row, int rows, float* scratch) {
  for (int64_t k = 0; k < args.w.cols; k += kSumColumns) {
    int panel = first;
    // With up to three rows it takes two panels for enough independent sums.
    for (; rows <= 3 && panel + 2 <= last; panel += 2) {
      multiply_block<Stored, 2>(args, panel, row, rows, k,
                                scratch + (panel - first) * kBlockRows * kPanelRows);
    }
    for (; panel < last; ++panel) {
      multiply_block<Stored, 1>(args, panel, row, rows, k,
                                scratch + (panel - first) * kBlockRows * kPanelRows);
    }
  }
  for (int panel = first; panel < last; ++panel) {
    finish_panel(args, panel, row, rows, scratch + (panel - first) * kBlockRows * kPanelRows);
  }
}

template <class Stored>
void matmul(const Matmul& args, int32_t first, int32_t last, float* scratch) {
  // Few rows wait for weights: one panel, or a pair, from end to end. With many rows their columns
  // of one block stay in the second-level cache while all panels meet them.
  const int together = args.m <= 3 ? 2 : args.m <= kFewRows ? 1 : kBlockPanels;
  for (int panel = first; panel < last; panel += together) {
    const int end = min_of(panel + together, last);
    for (int row = 0; row < args.m; row += kBlockRows) {
      multiply_panels<Stored>(args, panel, end, row, min_of(kBlockRows, args.m - row), scratch);
    }
  }
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
