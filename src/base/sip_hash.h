// SipHash-2-4 with a result of 128 bits: who does not know the key cannot find two contents of one
// hash.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace llorch {

using SipKey = std::array<uint64_t, 2>;
using Hash128 = std::array<uint64_t, 2>;

// The result's first word is the reference's first eight bytes, read as little-endian; so for keys.
Hash128 sip_hash(const SipKey& key, std::span<const std::byte> bytes);

}  // namespace llorch
