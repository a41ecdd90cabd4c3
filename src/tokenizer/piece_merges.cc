#include "tokenizer/piece_merges.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace llorch::tok {
namespace {

constexpr size_t kMaxMerges = 8'000'000;  // vocabularies of 256k pieces have half a million
constexpr size_t kMaxPieceBytes = 1024;

// A set of strings that may say yes to one that it has not got. It is asked for every beginning and
// end of every piece, whose hashes follow from one another.
class Hashes {
 public:
  static constexpr uint64_t kBase = 0x9E3779B97F4A7C15ULL;
  static uint64_t code(char c) { return static_cast<unsigned char>(c) + uint64_t{1}; }

  explicit Hashes(size_t count) {
    size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    slots_.resize(slots);
  }
  void add(std::string_view text) {
    uint64_t hash = 0;
    for (const char c : text) hash = hash * kBase + code(c);
    slots_[find(hash)] = hash;
  }
  bool has(uint64_t hash) const { return hash != 0 && slots_[find(hash)] == hash; }

 private:
  size_t find(uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = (hash ^ hash >> 32) & mask;
    while (slots_[slot] != 0 && slots_[slot] != hash) slot = (slot + 1) & mask;
    return slot;
  }
  std::vector<uint64_t> slots_;  // 0: none
};

struct Cut {
  BpeMerge merge;
  size_t left_chars, right_chars;
};

// The cuts of one piece, the shorter left side first.
class Cutter {
 public:
  Cutter(const Vocabulary& vocabulary, const std::vector<bool>& barred)
      : vocabulary_(vocabulary), barred_(barred), hashes_(vocabulary.size()) {
    vocabulary.for_each([this](std::string_view piece, int32_t) { hashes_.add(piece); });
  }

  void cut(std::string_view piece, int32_t id, std::vector<Cut>& cuts) {
    cuts.clear();
    if (piece.size() > kMaxPieceBytes) return;
    ends_.assign(piece.size() + 1, 0);
    uint64_t power = 1;
    for (size_t at = piece.size(); at-- > 0; power *= Hashes::kBase) {
      ends_[at] = ends_[at + 1] + Hashes::code(piece[at]) * power;
    }
    uint64_t beginning = 0;
    size_t chars = 0;
    for (size_t at = 0; at < piece.size(); ++at) {
      if (at > 0 && (piece[at] & 0xC0) != 0x80) {
        ++chars;
        if (hashes_.has(beginning) && hashes_.has(ends_[at])) add(piece, at, chars, id, cuts);
      }
      beginning = beginning * Hashes::kBase + Hashes::code(piece[at]);
    }
    for (Cut& c : cuts) c.right_chars = chars + 1 - c.left_chars;
  }

 private:
  void add(std::string_view piece, size_t at, size_t chars, int32_t id, std::vector<Cut>& cuts) {
    const auto left = vocabulary_.id_of(piece.substr(0, at));
    const auto right = vocabulary_.id_of(piece.substr(at));
    if (!left || !right || barred(*left) || barred(*right)) return;
    cuts.push_back({{*left, *right, id}, chars, 0});
  }
  bool barred(int32_t id) const { return barred_[static_cast<size_t>(id)]; }

  const Vocabulary& vocabulary_;
  const std::vector<bool>& barred_;
  Hashes hashes_;
  std::vector<uint64_t> ends_;  // hash of the piece's end from each byte
};

}  // namespace

std::vector<BpeMerge> merges_of_pieces(const Vocabulary& vocabulary, MergeOrder order,
                                       std::span<const float> scores,
                                       const std::vector<bool>& barred, const std::string& file) {
  std::vector<Cut> all, cuts;
  Cutter cutter(vocabulary, barred);
  vocabulary.for_each([&](std::string_view piece, int32_t id) {
    if (barred[static_cast<size_t>(id)]) return;
    cutter.cut(piece, id, cuts);
    if (all.size() + cuts.size() > kMaxMerges) {
      throw Error(ErrorCode::kUnsupported, file + ": its pieces can be merged in more than " +
                                               std::to_string(kMaxMerges) + " ways");
    }
    all.insert(all.end(), cuts.begin(), cuts.end());
  });
  const auto score = [&](const Cut& c) { return scores[static_cast<size_t>(c.merge.merged)]; };
  if (order == MergeOrder::kScore) {
    std::stable_sort(all.begin(), all.end(),
                     [&](const Cut& a, const Cut& b) { return score(a) > score(b); });
  } else {
    std::stable_sort(all.begin(), all.end(), [&](const Cut& a, const Cut& b) {
      return std::make_tuple(score(a), a.left_chars, a.right_chars) >
             std::make_tuple(score(b), b.left_chars, b.right_chars);
    });
  }
  std::vector<BpeMerge> merges;
  merges.reserve(all.size());
  for (const Cut& c : all) merges.push_back(c.merge);
  return merges;
}

}  // namespace llorch::tok
