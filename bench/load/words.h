// The texts of the tokens of a random model: one character each, every one another, so that a
// prompt of N tokens is a text of N characters and every token that is sampled shows.
#pragma once

#include <cstdint>
#include <string>

namespace llorch::bench {

// How many there are.
constexpr int kWords = 20'992 + 11'172 + 2 * 65'534;

// UTF-8 of word `id`, 0 <= id < kWords: Han, then Hangul, then private use.
inline std::string word(int id) {
  constexpr int kHan = 20'992, kHangul = 11'172, kPlane = 65'534;
  uint32_t c = 0x4E00 + static_cast<uint32_t>(id);
  if (id >= kHan) c = 0xAC00 + static_cast<uint32_t>(id - kHan);
  if (id >= kHan + kHangul) c = 0xF0000 + static_cast<uint32_t>(id - kHan - kHangul);
  if (id >= kHan + kHangul + kPlane) c += 2;  // the last two of a plane are no characters
  const auto last = [&](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), last(6), last(0)};
  return {static_cast<char>(0xF0 | (c >> 18)), last(12), last(6), last(0)};
}

}  // namespace llorch::bench
