#include "model/finite.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace llorch {
namespace {

// A sign-less bit pattern of `type` is bad from this one on.
uint32_t first_bad(DType type, DType target) {
  const bool narrows = target == DType::kF16;
  switch (type) {
    case DType::kF32:
      return narrows ? 0x477FF000u : 0x7F800000u;  // 65520, the least that rounds to f16's infinity
    case DType::kBF16:
      return narrows ? 0x4780u : 0x7F80u;  // 65536: bf16 has nothing between 65280 and it
    case DType::kF16:
      return 0x7C00u;
    case DType::kQ8_0:
      break;
  }
  return 0;
}

uint64_t all_lanes(uint64_t value, size_t width) {
  return width == 2 ? value * 0x0001000100010001u : value * 0x0000000100000001u;
}

}  // namespace

std::optional<size_t> find_not_finite(std::span<const std::byte> bytes, DType type, DType target) {
  // Eight bytes at a time: a lane's value plus (sign bit - first bad pattern) reaches the sign bit
  // exactly if the pattern is bad, and never carries into the next lane.
  const size_t width = size_bytes(type);
  const uint64_t sign = uint64_t{1} << (8 * width - 1);
  const uint64_t signs = all_lanes(sign, width);
  const uint64_t excess = all_lanes(sign - first_bad(type, target), width);
  constexpr size_t kBlock = 4096;
  for (size_t begin = 0; begin < bytes.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, bytes.size() - begin);
    uint64_t bad = 0;
    size_t at = 0;
    for (; at + 8 <= count; at += 8) {
      uint64_t lanes;
      std::memcpy(&lanes, bytes.data() + begin + at, 8);
      bad |= ((lanes & ~signs) + excess) & signs;
    }
    for (; at < count; at += width) {
      uint64_t lane = 0;
      std::memcpy(&lane, bytes.data() + begin + at, width);
      bad |= ((lane & ~signs) + (sign - first_bad(type, target))) & sign;
    }
    if (bad == 0) {
      continue;
    }
    for (at = 0; at < count; at += width) {
      uint64_t lane = 0;
      std::memcpy(&lane, bytes.data() + begin + at, width);
      if ((lane & (sign - 1)) >= first_bad(type, target)) {
        return (begin + at) / width;
      }
    }
  }
  return std::nullopt;
}

}  // namespace llorch
