// Quantised weights in panels. Knows how ggml's blocks are stored, and no kernel.
//
// A panel of P rows (Kernels::panel_rows) is block after block of 32 columns; where blocks share a
// header, it comes before the first of them. In bytes, for rows in vectors of L (Kernels::lanes):
//   codes   of 8 bits:  [P / L][8 groups of 4 columns][L rows][4 columns]
//           of fewer:   [P / L][4 groups][L][4], group g in the low halves and g + 4 in the high
//           fifth bits: [P / L][L][4], group g in bit g
//           bits 4, 5:  [P / L][2][L][4], group g of the half in bits 2 g and 2 g + 1
//   scales  q8_0, q4_0, iq4_nl: [P] f16; q4_k, q5_k: [P] scales, [P] minima; q6_k: [2][P] scales
//   header  q4_k, q5_k: [P] f16 d, [P] f16 dmin; q6_k: [P] f16 d
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/cpu/kernels.h"
#include "ops/backend.h"

namespace llorch::cpu {

// Bytes of a panel of weights with `cols` columns.
int64_t quantised_panel_bytes(DType type, int64_t cols, int32_t panel_rows);

// Fills a panel with `rows`, ggml's blocks of a row each, at most Kernels::panel_rows of them; the
// rest of it is zero.
void pack_quantised_panel(DType type, std::span<const std::byte* const> rows, int64_t cols,
                          const Kernels& kernels, std::byte* panel);

}  // namespace llorch::cpu
