#include "base/sip_hash.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

namespace llorch {
namespace {

std::string hex(const Hash128& hash) {
  std::string text;
  for (const uint64_t word : hash) {
    for (int i = 0; i < 8; ++i) {
      char byte[3];
      std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned>(word >> (8 * i) & 0xff));
      text += byte;
    }
  }
  return text;
}

// The bytes 0, 1, 2 … under the key 00 01 … 0f; as OpenSSL 3 and the authors' vectors have it.
TEST(SipHash, GivesTheReferencesVectors) {
  const SipKey key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  const struct {
    size_t length;
    const char* hash;
  } cases[] = {{0, "a3817f04ba25a8e66df67214c7550293"},
               {1, "da87c1d86b99af44347659119b22fc45"},
               {15, "5493e99933b0a8117e08ec0f97cfc3d9"},
               {16, "6ee2a4ca67b054bbfd3315bf85230577"},
               {63, "5150d1772f50834a503e069a973fbd7c"}};
  for (const auto& c : cases) {
    std::vector<std::byte> bytes;
    for (size_t i = 0; i < c.length; ++i) bytes.push_back(static_cast<std::byte>(i));
    EXPECT_EQ(hex(sip_hash(key, bytes)), c.hash) << c.length;
  }
}

}  // namespace
}  // namespace llorch
