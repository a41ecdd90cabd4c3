// Parses a tokenizer.json, keeping its two long lists apart from the rest. For .cc files of this
// folder only: it brings nlohmann's header with it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace llorch::tok {

// Strings back to back, by number.
class StringList {
 public:
  void add(std::string_view text) {
    bytes_ += text;
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

struct TokenizerDocument {
  nlohmann::json root;  // without the lists below

  // model.vocab where it is an object: hundreds of thousands of members, for which a tree is slow.
  bool has_vocab = false;
  StringList vocab_tokens;
  std::vector<int64_t> vocab_ids;  // one for each token

  // model.vocab where it is an array of pairs of a token and its score, kept in vocab_tokens too.
  bool has_scores = false;
  std::vector<double> vocab_scores;  // one for each token, as the library reads it

  // model.merges where it is an array: "left right", or both apart as two entries of the list.
  bool has_merges = false;
  StringList merges;
  std::vector<bool> merge_is_pair;  // by merge
};

// Throws Error{kCorruptFile}: what is not JSON, is nested deeper than 64, has a key twice in an
// object (but for model.vocab), or lists other things where the lists above are.
TokenizerDocument parse_tokenizer_json(std::string_view text, const std::string& file);

}  // namespace llorch::tok
