#include "tokenizer/charsmap.h"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace llorch::tok {
namespace {

// Units of a double-array trie. A node's children lie where its place is XORed with their labels.
uint32_t leads_to(unsigned char label, uint32_t offset, bool leaf) {
  return label | (leaf ? 0x100U : 0U) | offset << 10;
}

std::string block_of(const std::vector<uint32_t>& units, const std::string& texts) {
  std::string block;
  const auto put = [&block](uint32_t number) {
    for (int i = 0; i < 4; ++i) block.push_back(static_cast<char>(number >> (8 * i) & 0xFF));
  };
  put(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) put(unit);
  return block + texts;
}

// "a" becomes the text at `value`, and so does "bc".
std::vector<uint32_t> two_rules(uint32_t value) {
  std::vector<uint32_t> units(256, 0x80000000);
  units[0] = leads_to(0, 0, false);
  units['a'] = leads_to('a', 0x80, true);
  units['a' ^ 0x80] = value | 0x80000000;
  units['b'] = leads_to('b', 0x90, false);
  units['b' ^ 0x90 ^ 'c'] = leads_to('c', 8, true);
  units['b' ^ 0x90 ^ 'c' ^ 8] = value | 0x80000000;
  return units;
}

std::string rewritten(const std::string& block, const std::string& from) {
  Text text = original_text(from);
  Charsmap::parse(block).rewrite(text);
  return text.bytes;
}

TEST(Charsmap, RewritesClustersByTheShortestRule) {
  const std::string block = block_of(two_rules(2), std::string("x\0yz\0", 5));
  EXPECT_EQ(rewritten(block, "cac"), "cyzc");
  EXPECT_EQ(rewritten(block, "bc"), "bc");         // two clusters
  EXPECT_EQ(rewritten(block, "a\u0301."), "yz.");  // the mark is dropped
  EXPECT_EQ(rewritten(block, "a\u0301\u0301\u0301"), "yz\u0301\u0301\u0301");  // taken apart
  EXPECT_EQ(rewritten(block, ""), "");
}

TEST(Charsmap, KnowsWhatStandsForTheFirstCharacter) {
  const auto origin = [](uint32_t value, const std::string& from) {
    Text text = original_text(from);
    Charsmap::parse(block_of(two_rules(value), std::string("x\0yz\0", 5))).rewrite(text);
    return text.origin_bytes;
  };
  EXPECT_EQ(origin(2, "ab"), 2U);
  EXPECT_EQ(origin(2, "cab"), 1U);
  // As the library: what goes at the start leaves its place to what follows.
  EXPECT_EQ(origin(5, "acc"), 1U);
  EXPECT_EQ(origin(5, "a"), 0U);
}

TEST(Charsmap, RefusesADamagedBlock) {
  const std::string texts("x\0\xC3\xA9\0", 5);
  EXPECT_NO_THROW(Charsmap::parse(block_of(two_rules(5), texts)));
  const auto refused = [](const std::string& block) {
    EXPECT_THROW(Charsmap::parse(block), DamagedCharsmap);
  };
  const std::string whole = block_of(two_rules(0), texts);
  for (const size_t size : {size_t{0}, size_t{3}, size_t{4}, size_t{100}, size_t{1027}}) {
    refused(whole.substr(0, size));
  }
  refused(block_of({}, texts));
  refused(block_of(std::vector<uint32_t>(255, 0x80000000), texts));  // not a whole block of units
  refused(block_of(two_rules(6), texts));                            // behind the texts
  refused(block_of(two_rules(3), texts));                            // inside a character
  refused(block_of(two_rules(0), "x\xFF"));
  std::vector<uint32_t> far = two_rules(0);
  far['b'] = leads_to('b', 256, false);
  refused(block_of(far, texts));
  far['b'] = leads_to('b', 0x1FFFFF, false) | 0x200;
  refused(block_of(far, texts));
  std::vector<uint32_t> circle = two_rules(0);
  circle['b'] = leads_to('b', 'b', false);  // back to the root: odd, but safe
  EXPECT_EQ(rewritten(block_of(circle, texts), "b"), "b");
}

}  // namespace
}  // namespace llorch::tok
