// Token strings and their ids, both ways. Knows nothing of how text becomes tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/trie.h"

namespace llorch::tok {

// The largest id a file may name: far above any vocabulary, small enough for 32-bit sums.
inline constexpr int64_t kMaxTokenId = 10'000'000;

// Filled once, then immutable and readable from any thread. Ids may have gaps: memory follows the
// number of tokens, not the largest id.
class Vocabulary {
 public:
  void reserve(size_t tokens);
  // Returns false, adding nothing, if the token is there already.
  bool add(std::string_view token, int32_t id);
  // As add(), but a token that is there already has both ids: id_of() gives the last.
  void add_again(std::string_view token, int32_t id);
  // After the last add(). Returns an id that two tokens have, if one does.
  std::optional<int32_t> index_ids();

  std::optional<int32_t> id_of(std::string_view token) const;
  // The token's string, or none.
  std::optional<std::string_view> token_of(int32_t id) const;
  size_t size() const { return entries_.size(); }
  int32_t end_id() const { return end_id_; }  // one above the highest
  // In the order of ids.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (const uint32_t index : by_id_) visit(string_of(entries_[index]), entries_[index].id);
  }

 private:
  struct Entry {
    size_t offset;
    uint32_t bytes;
    int32_t id;
  };
  std::string_view string_of(const Entry& entry) const {
    return std::string_view(strings_).substr(entry.offset, entry.bytes);
  }
  size_t slot_of(std::string_view token) const;
  size_t slot_for(std::string_view token);
  void append(std::string_view token, int32_t id, size_t slot);
  void rehash(size_t slots);

  std::string strings_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // open addressing over entries_; kEmpty is none
  std::vector<uint32_t> by_id_;  // entries in the order of ids
  int32_t end_id_ = 0;
};

// All tokens and their ids.
Trie make_trie(const Vocabulary& vocabulary);

// For models: Error{kUnsupported}, the text needs an unknown token that the vocabulary lacks.
[[noreturn]] void throw_no_unknown_token();

}  // namespace llorch::tok
