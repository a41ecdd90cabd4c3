#include "tokenizer/trie.h"

#include <algorithm>
#include <cstring>

namespace llorch::tok {

// The sorted entries below one node, whose first `depth` bytes lead there.
struct Trie::Range {
  uint32_t node;
  size_t begin, end, depth;
};

Trie::Trie(std::vector<Entry> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.first < b.first; });
  nodes_.emplace_back();
  labels_.push_back(0);
  std::vector<Range> pending = {{kRoot, 0, entries.size(), 0}};
  while (!pending.empty()) {
    const Range range = pending.back();
    pending.pop_back();
    add_children(entries, range, pending);
  }
  from_root_.fill(kNowhere);
  for (uint32_t i = 0; i < nodes_[kRoot].children; ++i) {
    const uint32_t child = nodes_[kRoot].first_child + i;
    from_root_[static_cast<unsigned char>(labels_[child])] = child;
  }
}

void Trie::add_children(const std::vector<Entry>& sorted, const Range& range,
                        std::vector<Range>& pending) {
  size_t at = range.begin;
  for (; at < range.end && sorted[at].first.size() == range.depth; ++at) {
    nodes_[range.node].value = sorted[at].second;
  }
  const auto first = static_cast<uint32_t>(nodes_.size());
  while (at < range.end) {
    const char label = sorted[at].first[range.depth];
    const size_t begin = at;
    while (at < range.end && sorted[at].first[range.depth] == label) ++at;
    pending.push_back({static_cast<uint32_t>(nodes_.size()), begin, at, range.depth + 1});
    nodes_.emplace_back();
    labels_.push_back(label);
  }
  nodes_[range.node].first_child = first;
  nodes_[range.node].children = static_cast<uint32_t>(nodes_.size()) - first;
}

uint32_t Trie::step(uint32_t node, unsigned char byte) const {
  if (node == kRoot) return from_root_[byte];
  const Node& from = nodes_[node];
  const char* labels = labels_.data() + from.first_child;
  const void* found = std::memchr(labels, byte, from.children);
  if (found == nullptr) return kNowhere;
  return from.first_child + static_cast<uint32_t>(static_cast<const char*>(found) - labels);
}

uint32_t Trie::walk(uint32_t node, std::string_view bytes) const {
  for (size_t i = 0; i < bytes.size() && node != kNowhere; ++i) {
    node = step(node, static_cast<unsigned char>(bytes[i]));
  }
  return node;
}

}  // namespace llorch::tok
