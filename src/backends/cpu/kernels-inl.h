// One instruction set's kernels: included once, with LLORCH_ISA naming its namespace and
// LLORCH_KERNELS its table, by a source of its own that has its own compiler flags.
#pragma once

#include "backends/cpu/attention-inl.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/matmul-inl.h"
#include "backends/cpu/pointwise-inl.h"
#include "backends/cpu/quantised-inl.h"

namespace llorch::cpu {

extern const Kernels LLORCH_KERNELS = {
    .name = LLORCH_ISA_NAME,
    .lanes = LLORCH_ISA::kLanes,
    .panel_rows = LLORCH_ISA::kPanelRows,
    .sum_rows = kBlockRows,
    .matmul = {LLORCH_ISA::matmul<LLORCH_ISA::StoredF32>, LLORCH_ISA::matmul<LLORCH_ISA::StoredF16>,
               LLORCH_ISA::matmul<LLORCH_ISA::StoredBF16>, LLORCH_ISA::matmul_quantised<kQ8_0>,
               LLORCH_ISA::matmul_quantised<kQ4_0>, LLORCH_ISA::matmul_quantised<kQ4_K>,
               LLORCH_ISA::matmul_quantised<kQ5_K>, LLORCH_ISA::matmul_quantised<kQ6_K>,
               LLORCH_ISA::matmul_quantised<kIQ4_NL>},
    .split_row = nullptr,
    .quantise_row = LLORCH_ISA::quantise_row,
    .embed = {LLORCH_ISA::embed<LLORCH_ISA::StoredF32>, LLORCH_ISA::embed<LLORCH_ISA::StoredF16>,
              LLORCH_ISA::embed<LLORCH_ISA::StoredBF16>, LLORCH_ISA::embed_quantised<kQ8_0>,
              LLORCH_ISA::embed_quantised<kQ4_0>, LLORCH_ISA::embed_quantised<kQ4_K>,
              LLORCH_ISA::embed_quantised<kQ5_K>, LLORCH_ISA::embed_quantised<kQ6_K>,
              LLORCH_ISA::embed_quantised<kIQ4_NL>},
    .add = LLORCH_ISA::add,
    .norm = LLORCH_ISA::norm,
    .activate = {LLORCH_ISA::activate<LLORCH_ISA::silu_of>,
                 LLORCH_ISA::activate<LLORCH_ISA::gelu_tanh_of>,
                 LLORCH_ISA::activate<LLORCH_ISA::gelu_of>},
    .add_scaled = LLORCH_ISA::add_scaled,
    .dot = LLORCH_ISA::dot,
    .write_kv = {LLORCH_ISA::write_kv<LLORCH_ISA::StoredF32>,
                 LLORCH_ISA::write_kv<LLORCH_ISA::StoredF16>,
                 LLORCH_ISA::write_kv<LLORCH_ISA::StoredBF16>,
                 LLORCH_ISA::write_kv<LLORCH_ISA::StoredQ8>},
    .attend = {LLORCH_ISA::attend<LLORCH_ISA::StoredF32>, LLORCH_ISA::attend<LLORCH_ISA::StoredF16>,
               LLORCH_ISA::attend<LLORCH_ISA::StoredBF16>,
               LLORCH_ISA::attend<LLORCH_ISA::StoredQ8>},
    .attend_piece = {LLORCH_ISA::attend_piece<LLORCH_ISA::StoredF32>,
                     LLORCH_ISA::attend_piece<LLORCH_ISA::StoredF16>,
                     LLORCH_ISA::attend_piece<LLORCH_ISA::StoredBF16>,
                     LLORCH_ISA::attend_piece<LLORCH_ISA::StoredQ8>},
    .merge_piece = LLORCH_ISA::merge_piece,
    .finish_attend = LLORCH_ISA::finish_attend,
};

}  // namespace llorch::cpu
