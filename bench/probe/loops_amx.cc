#include "probe/loops-inl.h"
#include "probe/loops.h"

namespace llorch::bench {
namespace {

// What LDTILECFG reads (Intel SDM, volume 1, 18.2): eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tiles 0 to 3 are sums, 4 to 7 what is multiplied, `pair` everywhere.
void configure(uint16_t pair) {
  const TileConfig config;
  alignas(64) uint16_t values[16 * 32];
  for (uint16_t& value : values) value = pair;
  asm volatile("" ::: "memory");  // the intrinsics own up to reading eight bytes only
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, values, 64);
  _tile_loadd(5, values, 64);
  _tile_loadd(6, values, 64);
  _tile_loadd(7, values, 64);
}

}  // namespace

int64_t int8_amx(int64_t rounds) {
  configure(0x0203);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * 2 * 16 * 16 * 64;
}

int64_t bf16_amx(int64_t rounds) {
  configure(0x3c00);  // 2^-7
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * 2 * 16 * 16 * 32;
}

}  // namespace llorch::bench
