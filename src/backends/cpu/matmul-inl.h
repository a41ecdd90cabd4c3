// Rows times packed panels. Every output is a sum over columns in blocks of kSumColumns: within a
// block one column after the other, then block after block. That order is the same for every number
// of rows and every split, so a row's result never depends on what else is in the step.
#pragma once

#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

// sums[p][i] (+)= x[i][0 .. count) times panel p's columns; M rows and P panels in registers.
template <class Stored, int M, int P>
HWY_INLINE void multiply_tile(const float* const* x, int64_t column, int count,
                              const typename Stored::Element* const* panels, float* const* sums,
                              bool first) {
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
    for (int p = 0; p < P; ++p) Stored::load_panel(panels[p] + k * kPanelRows, w[p]);
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
template <class Stored, int P>
HWY_NOINLINE void multiply_rows(int m, const float* const* x, int64_t column, int count,
                                const typename Stored::Element* const* panels, float* const* sums,
                                bool first) {
  switch (m) {
    case 1:
      return multiply_tile<Stored, 1, P>(x, column, count, panels, sums, first);
    case 2:
      return multiply_tile<Stored, 2, P>(x, column, count, panels, sums, first);
    case 3:
      return multiply_tile<Stored, 3, P>(x, column, count, panels, sums, first);
  }
  if constexpr (P == 1) {
    switch (m) {
      case 4:
        return multiply_tile<Stored, 4, 1>(x, column, count, panels, sums, first);
      case 5:
        return multiply_tile<Stored, 5, 1>(x, column, count, panels, sums, first);
      default:
        return multiply_tile<Stored, 6, 1>(x, column, count, panels, sums, first);
    }
  }
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

// Few rows: each panel is read once, straight from its stored type.
template <class Stored>
void multiply_few(const Matmul& args, int first, int last, float* scratch) {
  using Element = typename Stored::Element;
  constexpr int kMost = 2;  // panels at once, for enough independent sums in one row
  const int together = args.m <= 3 ? kMost : 1;
  for (int panel = first; panel < last; panel += together) {
    const int count = min_of(together, last - panel);
    float* sums[kMost];
    const Element* columns[kMost];
    for (int64_t k = 0; k < args.w.cols; k += kSumColumns) {
      const int width = min_of(kSumColumns, static_cast<int>(args.w.cols - k));
      for (int p = 0; p < count; ++p) {
        columns[p] =
            reinterpret_cast<const Element*>(args.w.panels + (panel + p) * args.w.panel_bytes) +
            k * kPanelRows;
      }
      for (int i = 0; i < args.m; i += kMaxRows) {
        const int rows = min_of(kMaxRows, args.m - i);
        for (int p = 0; p < count; ++p) sums[p] = scratch + (p * kBlockRows + i) * kPanelRows;
        if (count == kMost) {
          multiply_rows<Stored, kMost>(rows, args.x + i, k, width, columns, sums, k == 0);
        } else {
          multiply_rows<Stored, 1>(rows, args.x + i, k, width, columns, sums, k == 0);
        }
      }
    }
    for (int p = 0; p < count; ++p) {
      finish_panel(args, panel + p, 0, args.m, scratch + p * kBlockRows * kPanelRows);
    }
  }
}

// Many rows: a block of a panel is widened to f32 once and meets kBlockRows rows, whose columns of
// this block stay in the second-level cache for all panels.
template <class Stored>
void multiply_many(const Matmul& args, int first, int last, float* scratch) {
  using Element = typename Stored::Element;
  float* wide = scratch;
  float* all_sums = scratch + kSumColumns * kPanelRows;
  for (int row = 0; row < args.m; row += kBlockRows) {
    const int rows = min_of(kBlockRows, args.m - row);
    for (int64_t k = 0; k < args.w.cols; k += kSumColumns) {
      const int width = min_of(kSumColumns, static_cast<int>(args.w.cols - k));
      for (int panel = first; panel < last; ++panel) {
        const auto* columns =
            reinterpret_cast<const Element*>(args.w.panels + panel * args.w.panel_bytes) +
            k * kPanelRows;
        for (int64_t c = 0; c < width; ++c) {
          Vec w[kPanelVectors];
          Stored::load_panel(columns + c * kPanelRows, w);
          for (int v = 0; v < kPanelVectors; ++v) {
            store(w[v], wide + c * kPanelRows + v * kLanes);
          }
        }
        float* panel_sums = all_sums + (panel - first) * kBlockRows * kPanelRows;
        for (int i = 0; i < rows; i += kMaxRows) {
          float* sums = panel_sums + i * kPanelRows;
          multiply_rows<StoredF32, 1>(min_of(kMaxRows, rows - i), args.x + row + i, k, width, &wide,
                                      &sums, k == 0);
        }
      }
    }
    for (int panel = first; panel < last; ++panel) {
      finish_panel(args, panel, row, rows, all_sums + (panel - first) * kBlockRows * kPanelRows);
    }
  }
}

template <class Stored>
void matmul(const Matmul& args, int32_t first, int32_t last, float* scratch) {
  if (args.m <= 2 * kMaxRows) {
    multiply_few<Stored>(args, first, last, scratch);
  } else {
    multiply_many<Stored>(args, first, last, scratch);
  }
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
