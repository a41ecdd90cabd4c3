// Products with quantised weights. Activations are int8 as well, so a block of 32 columns is summed
// in integers: exactly, in whatever order an instruction set likes. Blocks are added in f32, one
// after the other. A row's result depends on nothing but the row and the weights.
#pragma once

#include "backends/cpu/dot-inl.h"
#include "backends/cpu/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llorch::cpu::LLORCH_ISA {
namespace {

// Vectors of a panel whose codes are in registers together.
constexpr int kCodeVectors = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 ? 2 : 1;
static_assert(kPanelVectors % kCodeVectors == 0);

HWY_INLINE Codes load_codes(const std::byte* at) {
  return hn::LoadU(U8(), reinterpret_cast<const uint8_t*>(at));
}
HWY_INLINE Codes masked(Codes x, uint8_t mask) { return hn::And(x, hn::Set(U8(), mask)); }

// A byte's bits moved; what comes from its neighbour is masked by the caller.
template <int kLeft>
HWY_INLINE Codes shifted(Codes x) {
  const hn::Repartition<uint16_t, U8> wide;
  if constexpr (kLeft >= 0) return hn::BitCast(U8(), hn::ShiftLeft<kLeft>(hn::BitCast(wide, x)));
  return hn::BitCast(U8(), hn::ShiftRight < kLeft >= 0 ? 0 : -kLeft > (hn::BitCast(wide, x)));
}

// What the blocks of a type have in common. `v` is a vector of the panel.
template <int kType>
struct Block {
  static constexpr PanelBlock kLayout = kPanelBlocks[kType];
  static constexpr bool kHasMins = kType == kQ4_K || kType == kQ5_K;
  // Scales of a block, each of as many columns.
  static constexpr int kScales = kType == kQ6_K ? 2 : 1;
  static constexpr int64_t kCodeBytes = int64_t{kLayout.code_bytes} * kPanelRows;
  static constexpr int64_t kBytes = kCodeBytes + int64_t{kLayout.scale_bytes} * kPanelRows;
  static constexpr int64_t kHeaderBytes = int64_t{kLayout.header_bytes} * kPanelRows;
  static constexpr bool kWide = kLayout.bits == 8 || kType == kIQ4_NL;  // take all 8 bits
  static constexpr int kBits = kWide ? 8 : kLayout.bits;
  // log2 of the code that stands for zero; -1: 0 does.
  static constexpr int kZero = kWide            ? (kSignedCodes ? -1 : 7)
                               : kType == kQ4_0 ? 3
                               : kType == kQ6_K ? 5
                                                : -1;

  // Of columns 4 g .. 4 g + 3 for each row.
  static HWY_INLINE void codes(const std::byte* block, int v, Codes (&w)[8]) {
    if constexpr (kLayout.bits == 8) {
      for (int g = 0; g < 8; ++g) {
        const Codes stored = load_codes(block + (v * 8 + g) * kCodeVectorBytes);
        w[g] = kSignedCodes ? hn::Xor(stored, hn::Set(U8(), 0x80)) : stored;
      }
      return;
    } else {
      for (int g = 0; g < 4; ++g) {
        const Codes both = load_codes(block + (v * 4 + g) * kCodeVectorBytes);
        w[g] = masked(both, 0x0F);
        w[g + 4] = masked(shifted<-4>(both), 0x0F);
      }
      const std::byte* more = block + int64_t{16} * kPanelRows;
      if constexpr (kLayout.bits == 5) {
        const Codes fifth = load_codes(more + v * kCodeVectorBytes);
        w[0] = hn::Or(w[0], masked(shifted<4>(fifth), 0x10));
        w[1] = hn::Or(w[1], masked(shifted<3>(fifth), 0x10));
        w[2] = hn::Or(w[2], masked(shifted<2>(fifth), 0x10));
        w[3] = hn::Or(w[3], masked(shifted<1>(fifth), 0x10));
        w[4] = hn::Or(w[4], masked(fifth, 0x10));
        w[5] = hn::Or(w[5], masked(shifted<-1>(fifth), 0x10));
        w[6] = hn::Or(w[6], masked(shifted<-2>(fifth), 0x10));
        w[7] = hn::Or(w[7], masked(shifted<-3>(fifth), 0x10));
      }
      if constexpr (kLayout.bits == 6) {
        for (int half = 0; half < 2; ++half) {
          const Codes upper = load_codes(more + (v * 2 + half) * kCodeVectorBytes);
          Codes* const four = w + half * 4;
          four[0] = hn::Or(four[0], masked(shifted<4>(upper), 0x30));
          four[1] = hn::Or(four[1], masked(shifted<2>(upper), 0x30));
          four[2] = hn::Or(four[2], masked(upper, 0x30));
          four[3] = hn::Or(four[3], masked(shifted<-2>(upper), 0x30));
        }
      }
      if constexpr (kType == kIQ4_NL) {
        const Codes table = hn::LoadDup128(U8(), kSignedCodes ? kSignedTable : kTable);
        for (int g = 0; g < 8; ++g) w[g] = hn::TableLookupBytes(table, w[g]);
      }
    }
  }

  // What the codes less zero are multiplied with.
  static HWY_INLINE void scales(const std::byte* header, const std::byte* block, int v,
                                Vec (&d)[kScales]) {
    const std::byte* own = block + kCodeBytes;
    if constexpr (kHeaderBytes == 0) {
      d[0] = StoredF16::load_row(reinterpret_cast<const uint16_t*>(own) + v * kLanes);
    } else {
      const Vec shared =
          StoredF16::load_row(reinterpret_cast<const uint16_t*>(header) + v * kLanes);
      for (int s = 0; s < kScales; ++s) {
        const std::byte* at = own + s * kPanelRows + v * kLanes;
        d[s] = hn::Mul(shared, kType == kQ6_K ? small<int8_t>(at) : small<uint8_t>(at));
      }
    }
  }

  // Minus what every value is less by.
  static HWY_INLINE Vec minus_min(const std::byte* header, const std::byte* block, int v) {
    const auto* shared = reinterpret_cast<const uint16_t*>(header) + kPanelRows + v * kLanes;
    const std::byte* own = block + kCodeBytes + kPanelRows + v * kLanes;
    return hn::Neg(hn::Mul(StoredF16::load_row(shared), small<uint8_t>(own)));
  }

  // The code of a row of the panel, less zero.
  static HWY_INLINE int code(const std::byte* block, int row, int column) {
    const int v = row / kLanes, g = column / 4, within = row % kLanes * 4 + column % 4;
    const auto byte = [&](const std::byte* plane, int index) {
      return static_cast<int>(plane[index * kCodeVectorBytes + within]);
    };
    if constexpr (kLayout.bits == 8) return byte(block, v * 8 + g) - 128;
    int value = byte(block, v * 4 + g % 4) >> (g / 4 * 4) & 15;
    const std::byte* more = block + int64_t{16} * kPanelRows;
    if constexpr (kLayout.bits == 5) value |= (byte(more, v) >> g & 1) << 4;
    if constexpr (kLayout.bits == 6) value |= (byte(more, v * 2 + g / 4) >> (g % 4 * 2) & 3) << 4;
    if constexpr (kType == kIQ4_NL) return kTable[value] - 128;
    return kType == kQ4_0 ? value - 8 : kType == kQ6_K ? value - 32 : value;
  }

 private:
  // ggml's table of IQ4_NL, as unsigned codes whose zero is 128, and as signed ones.
  alignas(16) static constexpr uint8_t kTable[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                     129, 141, 153, 166, 181, 197, 217, 241};
  alignas(16) static constexpr uint8_t kSignedTable[16] = {129, 152, 173, 191, 207, 221, 234, 246,
                                                           1,   13,  25,  38,  53,  69,  89,  113};

  template <class Small>
  static HWY_INLINE Vec small(const std::byte* at) {
    const hn::Rebind<Small, F32> narrow;
    return hn::ConvertTo(
        F32(), hn::PromoteTo(I32(), hn::LoadU(narrow, reinterpret_cast<const Small*>(at))));
  }
};

// Walks a panel's blocks of columns.
template <class B>
struct BlockCursor {
  const std::byte* header;
  const std::byte* block;

  // At block `index`, the first after a header.
  HWY_INLINE explicit BlockCursor(const std::byte* panel, int64_t index = 0)
      : header(panel + index * B::kBytes + index / B::kLayout.blocks_per_header * B::kHeaderBytes),
        block(header + B::kHeaderBytes) {}
  // From block `index` to the one after it.
  HWY_INLINE void next(int64_t index) {
    block += B::kBytes;
    if constexpr (B::kHeaderBytes > 0) {
      if ((index + 1) % B::kLayout.blocks_per_header != 0) return;
      header = block;
      block += B::kHeaderBytes;
    }
  }
};

// The codes of kCodeVectors vectors of one block, and their factors.
template <class B>
struct LoadedBlock {
  Codes codes[kCodeVectors][8];
  Vec scales[kCodeVectors][B::kScales];
  Vec minus_mins[kCodeVectors];

  HWY_INLINE LoadedBlock(const BlockCursor<B>& at, int v) {
    for (int t = 0; t < kCodeVectors; ++t) {
      B::codes(at.block, v + t, codes[t]);
      B::scales(at.header, at.block, v + t, scales[t]);
      minus_mins[t] = B::kHasMins ? B::minus_min(at.header, at.block, v + t) : zero();
    }
  }
};

// sums += a row's block times the weights'. Every path to a product must do this arithmetic.
template <class B>
HWY_INLINE Vec added(Vec sum, Ints dot, Vec scale, float row_scale) {
  return hn::MulAdd(hn::ConvertTo(F32(), dot), hn::Mul(scale, set(row_scale)), sum);
}
HWY_INLINE Vec added_min(Vec sum, Vec minus_min, float scaled_sum) {
  return hn::MulAdd(minus_min, set(scaled_sum), sum);
}

// What makes up for codes that are stored with an offset, in the sum that scale `s` is of.
template <class B>
HWY_INLINE Ints start_of(const QuantisedBlock& row, int s) {
  if constexpr (B::kZero < 0) {
    return hn::Zero(I32());
  } else {
    const int32_t minus = B::kScales == 1 ? row.minus_sum
                          : s == 0        ? row.minus_half
                                          : row.minus_sum - row.minus_half;
    return hn::ShiftLeft<B::kZero>(hn::Set(I32(), minus));
  }
}

// kRows rows of one tile meet a block; the sums of the next row lie kPanelRows further on.
template <class B, int kRows>
HWY_INLINE void add_together(const LoadedBlock<B>& w, const int8_t* x, const QuantisedBlock* rows,
                             float* sums) {
  constexpr int kGroups = 8 / B::kScales;
  Vec acc[kRows][kCodeVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kCodeVectors; ++t) acc[r][t] = load(sums + r * kPanelRows + t * kLanes);
  }
  for (int s = 0; s < B::kScales; ++s) {
    Ints dots[kRows][kCodeVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kCodeVectors; ++t) dots[r][t] = start_of<B>(rows[r], s);
    }
    if (s == 0) {
      add_dots<B::kBits, 0, kGroups>(w.codes, x, dots);
    } else {
      add_dots<B::kBits, 8 - kGroups, 8>(w.codes, x, dots);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kCodeVectors; ++t) {
        acc[r][t] = added<B>(acc[r][t], dots[r][t], w.scales[t][s], rows[r].scale);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kCodeVectors; ++t) {
      if (B::kHasMins) acc[r][t] = added_min(acc[r][t], w.minus_mins[t], rows[r].scaled_sum);
      store(acc[r][t], sums + r * kPanelRows + t * kLanes);
    }
  }
}

// The same for any number of rows.
template <class B>
HWY_INLINE void add_rows(const LoadedBlock<B>& w, const int8_t* x, const QuantisedBlock* rows,
                         int count, float* sums) {
  constexpr int kRows = kRowsTogether < 2 ? 1 : kRowsTogether / B::kScales;
  int i = 0;
  for (; i + kRows <= count; i += kRows, sums += kRows * kPanelRows) {
    add_together<B, kRows>(w, x + i * kBlockColumns, rows + i, sums);
  }
  for (; i < count; ++i, sums += kPanelRows) {
    add_together<B, 1>(w, x + i * kBlockColumns, rows + i, sums);
  }
}

// How far ahead of its use a weight is asked for, as measured: from memory into the second cache,
// and from there into the first. A core has room for more lines on their way into the second.
constexpr int64_t kFarPrefetch = 4096, kNearPrefetch = 2048;

// Rows [first, first + rows) meet a panel; at most kBlockRows of them.
template <class B>
HWY_INLINE void multiply_quantised(const Matmul& args, const std::byte* panel, int first, int rows,
                                   float* sums) {
  const QuantisedRows& x = args.quantised;
  const int64_t blocks = args.w.cols / kBlockColumns;
  for (int i = 0; i < rows * kPanelRows; i += kLanes) store(zero(), sums + i);
  BlockCursor<B> at(panel);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t i = 0; i < B::kBytes; i += 64) {
      __builtin_prefetch(at.block + kFarPrefetch + i, 0, 2);
      __builtin_prefetch(at.block + kNearPrefetch + i);
    }
    for (int v = 0; v < kPanelVectors; v += kCodeVectors) {
      const LoadedBlock<B> loaded(at, v);
      float* of_row = sums + v * kLanes;
      for (int tile = first; tile < first + rows; tile += kRowTile) {
        const int64_t place = (tile / kRowTile * x.block_count + b) * x.tile_rows;
        const int8_t* values = x.values + place * kBlockColumns;
        const int count = min_of(kRowTile, first + rows - tile);
        add_rows<B>(loaded, values, x.blocks + place, count, of_row);
        of_row += count * kPanelRows;
      }
    }
    at.next(b);
  }
}

template <int kType>
void matmul_quantised(const Matmul& args, int32_t first, int32_t last, float* scratch) {
  for (int panel = first; panel < last; ++panel) {
    const std::byte* weights = args.w.panels + panel * args.w.panel_bytes;
    for (int row = 0; row < args.m; row += kBlockRows) {
      const int rows = min_of(kBlockRows, args.m - row);
      multiply_quantised<Block<kType>>(args, weights, row, rows, scratch);
      finish_panel(args, panel, row, rows, scratch);
    }
  }
}

template <int kType>
void embed_quantised(const PanelWeight& table, int32_t row, float scale, float* out) {
  using B = Block<kType>;
  const int within = row % kPanelRows, v = within / kLanes, lane = within % kLanes;
  BlockCursor<B> at(table.panels + row / kPanelRows * table.panel_bytes);
  for (int64_t b = 0; b < table.cols / kBlockColumns; ++b) {
    Vec scales[B::kScales];
    B::scales(at.header, at.block, v, scales);
    float factors[B::kScales][kLanes], minus_mins[kLanes] = {};
    for (int s = 0; s < B::kScales; ++s) store(scales[s], factors[s]);
    if (B::kHasMins) store(B::minus_min(at.header, at.block, v), minus_mins);
    for (int k = 0; k < kBlockColumns; ++k, ++out) {
      const float factor = factors[k * B::kScales / kBlockColumns][lane];
      const float value = factor * static_cast<float>(B::code(at.block, within, k));
      *out = (B::kHasMins ? value + minus_mins[lane] : value) * scale;
    }
    at.next(b);
  }
}

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
HWY_AFTER_NAMESPACE();
