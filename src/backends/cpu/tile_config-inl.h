// The shapes of the tile unit's registers, as LDTILECFG reads them (Intel SDM, volume 1, 18.2).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace llorch::cpu::LLORCH_ISA {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void load() const {
    asm volatile("" ::: "memory");  // g++ 12's intrinsic owns up to reading eight bytes only
    _tile_loadconfig(this);
  }
};

}  // namespace
}  // namespace llorch::cpu::LLORCH_ISA
