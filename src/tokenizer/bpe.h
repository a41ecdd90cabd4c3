// Byte-pair encoding of one word. Knows nothing of how text was cut into words, nor of decoding.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace llorch::tok {

struct BpeOptions {
  std::optional<std::string> unk_token;
  bool fuse_unk = false;       // adjacent unknown characters are one unknown token
  bool byte_fallback = false;  // an unknown character becomes its bytes' tokens <0x00> ... <0xFF>
  bool ignore_merges = false;  // a word that is a token is that token
};

// Ids of both sides and of what they become, a token of both texts together; the order is the rank.
struct BpeMerge {
  int32_t left, right, merged;
};

// Immutable; any thread.
class Bpe {
 public:
  // Every id in `merges` must be one of `vocabulary`, which has been indexed.
  Bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, BpeOptions options);

  // Memory that words of one text share. Belongs to one thread.
  struct Workspace {
    // `bytes`: about how many will be encoded; a long text repeats its words.
    explicit Workspace(size_t bytes);

    struct Symbol {
      int32_t id;  // kRemoved: merged into the one on its left
      int32_t previous, next;
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;  // rank above, place below
    std::vector<uint32_t> ranks;
    // The last short word of each hash.
    struct Known {
      static constexpr size_t kMaxBytes = 23, kMaxIds = 6;
      uint8_t bytes = 0;  // 0: none
      std::array<char, kMaxBytes> word;
      uint32_t count;
      std::array<int32_t, kMaxIds> ids;
    };
    std::vector<Known> known;  // as many as a power of two, or none
  };
  // Appends the ids of `word`, valid UTF-8 under 2^31 bytes, in n log n. Throws
  // Error{kUnsupported} if a character is unknown and the unknown token is not in the vocabulary.
  void encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint64_t pair;
    uint32_t rank;
    int32_t merged;
  };
  const Merge* find_merge(int32_t left, int32_t right) const;
  void add_merge(const BpeMerge& merge, uint32_t rank);
  std::optional<int32_t> char_id(std::string_view character) const;
  int32_t unknown_id() const;
  void add_merges(const std::vector<BpeMerge>& merges);
  void note_tokens();
  void note_pairs(std::string_view token);
  bool may_join(char32_t left, char32_t right) const;
  bool is_known(std::string_view character) const;
  void encode_stretch(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;
  void make_symbols(std::string_view word, Workspace& workspace) const;
  void merge_few(Workspace& workspace) const;
  void merge_many(Workspace& workspace) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::vector<Merge> merges_;                      // open addressing by pair
  std::vector<int32_t> merged_by_rank_;            // what each rank makes
  std::array<int32_t, 0x400> low_chars_;           // ids of tokens of one low character, or kNone
  std::optional<std::array<int32_t, 256>> bytes_;  // byte tokens, kNone where missing
  std::vector<uint64_t> joined_;  // a bit by hash for each pair of characters inside merged tokens
  bool keeps_all_ = false;        // unknown characters become their bytes
  size_t longest_token_ = 0;      // bytes
};

}  // namespace llorch::tok
