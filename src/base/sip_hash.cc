#include "base/sip_hash.h"

#include <algorithm>
#include <bit>

namespace llorch {
namespace {

struct State {
  uint64_t a, b, c, d;

  void rounds(int count) {
    for (int i = 0; i < count; ++i) {
      a += b;
      c += d;
      b = std::rotl(b, 13) ^ a;
      d = std::rotl(d, 16) ^ c;
      a = std::rotl(a, 32);
      c += b;
      a += d;
      b = std::rotl(b, 17) ^ c;
      d = std::rotl(d, 21) ^ a;
      c = std::rotl(c, 32);
    }
  }

  void take(uint64_t word) {
    d ^= word;
    rounds(2);
    a ^= word;
  }
};

uint64_t little_endian(std::span<const std::byte> bytes) {
  uint64_t word = 0;
  for (size_t i = 0; i < bytes.size(); ++i) word |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  return word;
}

}  // namespace

Hash128 sip_hash(const SipKey& key, std::span<const std::byte> bytes) {
  State state{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d ^ 0xee,
              key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
  const uint64_t length = bytes.size();
  for (; bytes.size() >= 8; bytes = bytes.subspan(8)) state.take(little_endian(bytes.first(8)));
  state.take(little_endian(bytes) | length << 56);
  const auto result = [&] { return state.a ^ state.b ^ state.c ^ state.d; };
  state.c ^= 0xee;
  state.rounds(4);
  const uint64_t first = result();
  state.b ^= 0xdd;
  state.rounds(4);
  return {first, result()};
}

}  // namespace llorch
