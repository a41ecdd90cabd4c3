#include "tokenizer/charsmap.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr size_t kBlock = 256;                 // units that the labels of one node can lead to
constexpr size_t kMaxUnits = size_t{1} << 20;  // checking takes 255 steps for each
constexpr size_t kClusterBytes = 6;            // longer clusters are taken apart

// A unit of a double-array trie, as the Darts-clone library lays it out.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) == 1; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
size_t offset_of(uint32_t unit) { return size_t{unit >> 10} << ((unit & 0x200) >> 6); }

// Follows what a list of changes does to text.origin_bytes. The library says of each new character
// whether it replaces the next old one (0), stands in for more (-n: n more) or is put in (1); where
// old characters go without a new one before them, nothing is said, and what comes after is taken
// to stand for them.
class Origin {
 public:
  explicit Origin(const Text& text) : text_(text) {}

  // `new_bytes` replace `old_bytes` and come to `end` in the new text.
  void replace(size_t old_chars, std::string_view new_bytes, size_t begin) {
    if (done_) return;
    size_t chars = 0;
    for (size_t at = 0; at < new_bytes.size(); ++chars) {
      at += char_bytes(new_bytes, at);
      settle();
      pending_ = {begin + at, chars < old_chars ? 0 : 1};
    }
    if (chars < old_chars && pending_) {
      pending_->change -= static_cast<std::ptrdiff_t>(old_chars - chars);
    }
  }
  size_t bytes() {
    settle();
    return origin_;
  }

 private:
  struct Change {
    size_t end;  // of the new character
    std::ptrdiff_t change;
  };

  void settle() {
    if (!pending_) return;
    const Change now = *pending_;
    pending_.reset();
    const size_t stands_for = now.change > 0 ? std::max<size_t>(at_, 1) - 1 : at_;
    if (stands_for < text_.origin_bytes) {
      origin_ = now.end;
    } else {
      done_ = true;
    }
    if (now.change > 0) return;
    for (std::ptrdiff_t i = now.change; i <= 0 && at_ < text_.bytes.size(); ++i) {
      at_ += char_bytes(text_.bytes, at_);
    }
  }

  const Text& text_;
  std::optional<Change> pending_;  // the last one, which may still change
  size_t at_ = 0;                  // of the old text
  size_t origin_ = 0;
  bool done_ = false;
};

}  // namespace

Charsmap Charsmap::parse(std::string_view block) {
  const auto number_at = [&block](size_t at) {
    uint32_t number = 0;
    for (size_t i = 4; i-- > 0;) number = number << 8 | static_cast<unsigned char>(block[at + i]);
    return number;
  };
  if (block.size() < 4) throw DamagedCharsmap("ends before the size of its trie");
  const size_t units = number_at(0) / 4;
  if (units > (block.size() - 4) / 4) throw DamagedCharsmap("ends inside its trie");
  if (units > kMaxUnits) throw DamagedCharsmap("has a trie of more than 2^20 units");
  Charsmap map;
  map.units_.reserve(units);
  for (size_t i = 0; i < units; ++i) map.units_.push_back(number_at(4 + i * 4));
  map.texts_ = block.substr(4 + units * 4);
  if (!is_valid_utf8(map.texts_)) throw DamagedCharsmap("has new texts that are not UTF-8");
  map.check_reachable();
  return map;
}

void Charsmap::check_value(size_t node) const {
  const size_t at = value_of(units_[node]);
  if (at > texts_.size() || (at < texts_.size() && (texts_[at] & 0xC0) == 0x80)) {
    throw DamagedCharsmap("has a rule that points to no text");
  }
}

// So that a search needs no bounds: the nodes that can be reached lie in whole blocks of the trie.
void Charsmap::check_reachable() const {
  const auto check_node = [this](size_t node) {
    if ((node | (kBlock - 1)) >= units_.size()) {
      throw DamagedCharsmap("has a node outside its trie");
    }
  };
  check_node(0);
  std::vector<bool> seen(units_.size());
  std::vector<size_t> pending;
  const auto reach = [&](size_t node) {
    check_node(node);
    if (seen[node]) return;
    seen[node] = true;
    pending.push_back(node);
  };
  reach(offset_of(units_[0]));
  while (!pending.empty()) {
    const size_t node = pending.back();
    pending.pop_back();
    for (uint32_t byte = 1; byte < kBlock; ++byte) {
      const uint32_t unit = units_[node ^ byte];
      if (label_of(unit) != byte) continue;
      const size_t next = node ^ byte ^ offset_of(unit);
      reach(next);
      if (has_leaf(unit)) check_value(next);
    }
  }
}

std::optional<std::string_view> Charsmap::find(std::string_view part) const {
  size_t node = offset_of(units_[0]);
  for (const char c : part) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    node ^= byte;
    const uint32_t unit = units_[node];
    if (label_of(unit) != byte) break;
    node ^= offset_of(unit);
    if (has_leaf(unit)) return std::string_view(texts_.c_str() + value_of(units_[node]));
  }
  return std::nullopt;
}

void Charsmap::rewrite(Text& text) const {
  std::string out;
  out.reserve(text.bytes.size());
  Origin origin(text);
  const std::string_view all = text.bytes;
  const auto put = [&](std::string_view part, std::string_view made) {
    origin.replace(count_chars(part), made, out.size());
    out += made;
    text.check(out.size());
  };
  GraphemeBreaker breaker(all);
  for (size_t at = 0; at < all.size();) {
    const std::string_view cluster = all.substr(at, breaker.next() - at);
    at += cluster.size();
    if (cluster.size() < kClusterBytes) {
      if (const std::optional<std::string_view> made = find(cluster)) {
        put(cluster, *made);
        continue;
      }
    }
    for (size_t i = 0; i < cluster.size();) {
      const std::string_view one = cluster.substr(i, char_bytes(cluster, i));
      put(one, find(one).value_or(one));
      i += one.size();
    }
  }
  text.set(std::move(out), origin.bytes());
}

}  // namespace llorch::tok
