// A set of byte strings, each with a number, that finds those a text begins with. Knows nothing of
// tokens.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace llorch::tok {

// Immutable; any thread.
class Trie {
 public:
  using Entry = std::pair<std::string_view, int32_t>;  // a string and its number, not negative

  // Of a string that is listed twice the last number counts.
  explicit Trie(std::vector<Entry> entries);

  static constexpr uint32_t kRoot = 0, kNowhere = UINT32_MAX;
  static constexpr int32_t kNone = -1;
  // The node one byte further, or kNowhere.
  uint32_t step(uint32_t node, unsigned char byte) const;
  // As many steps as `bytes` has.
  uint32_t walk(uint32_t node, std::string_view bytes) const;
  // The number of the string that ends at this node, or kNone.
  int32_t value(uint32_t node) const { return nodes_[node].value; }

 private:
  struct Node {
    uint32_t first_child = 0;  // children are neighbours, in the order of their labels
    uint32_t children = 0;
    int32_t value = kNone;
  };
  struct Range;
  void add_children(const std::vector<Entry>& sorted, const Range& range,
                    std::vector<Range>& pending);

  std::vector<Node> nodes_;
  std::vector<char> labels_;               // of each node: the byte that leads to it
  std::array<uint32_t, 256> from_root_{};  // where most steps begin
};

}  // namespace llorch::tok
