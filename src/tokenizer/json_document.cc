#include "tokenizer/json_document.h"

#include "base/error.h"
#include "tokenizer/json_node.h"
#include "tokenizer/json_number.h"

namespace llorch::tok {
namespace {

using nlohmann::json;

// Receives nlohmann's events and builds the tree, but for the lists.
class Builder {
 public:
  Builder(TokenizerDocument& document, const std::string& file)
      : document_(document), file_(file) {}

  // The names and signatures from here to parse_error() are nlohmann's.
  using number_integer_t = json::number_integer_t;
  using number_unsigned_t = json::number_unsigned_t;
  using number_float_t = json::number_float_t;
  using string_t = json::string_t;
  using binary_t = json::binary_t;

  bool null() { return value(json()); }
  bool boolean(bool v) { return value(json(v)); }
  bool number_integer(number_integer_t v) {
    if (list_ == List::kScored) return add_score(static_cast<double>(v));
    return list_ == List::kVocab ? add_id(v) : value(json(v));
  }
  bool number_unsigned(number_unsigned_t v) {
    if (list_ == List::kScored) return add_score(static_cast<double>(v));
    if (list_ != List::kVocab) return value(json(v));
    return add_id(v > INT64_MAX ? INT64_MAX : static_cast<int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t& text) {
    return list_ == List::kScored ? add_score(library_double(text)) : value(json(v));
  }
  bool binary(binary_t&) { return false; }

  bool string(string_t& v) {
    if (list_ == List::kMerges) {
      document_.merges.add(v);
      document_.merge_is_pair.push_back(false);
      return true;
    }
    if (list_ == List::kPair) {
      document_.merges.add(v);
      ++pair_strings_;
      return true;
    }
    if (list_ == List::kScored) {
      // Before its score, of which there are then as many as of the tokens before.
      if (document_.vocab_tokens.size() != document_.vocab_scores.size()) list_fault();
      document_.vocab_tokens.add(v);
      return true;
    }
    return value(json(std::move(v)));
  }

  bool start_object(size_t) {
    deeper();
    if (list_ != List::kNone) list_fault();
    if (at_list("vocab")) {
      list_ = List::kVocab;
      document_.has_vocab = true;
      return true;
    }
    push(json::object());
    return true;
  }

  bool key(string_t& name) {
    if (list_ == List::kVocab) {
      document_.vocab_tokens.add(name);
      return true;
    }
    if (stack_.back()->contains(name)) {
      throw_corrupt_at(file_, "", "the key " + shown(name) + " is listed twice");
    }
    key_ = std::move(name);
    if (stack_.size() == 1) top_key_ = key_;
    return true;
  }

  bool end_object() {
    --depth_;
    if (list_ == List::kVocab) {
      list_ = List::kNone;
      return true;
    }
    stack_.pop_back();
    return true;
  }

  bool start_array(size_t) {
    deeper();
    if (list_ == List::kMerges) {
      list_ = List::kPair;
      pair_strings_ = 0;
      return true;
    }
    if (list_ == List::kScores) {
      list_ = List::kScored;
      return true;
    }
    if (list_ != List::kNone) list_fault();
    if (at_list("vocab")) {
      list_ = List::kScores;
      document_.has_scores = true;
      return true;
    }
    if (at_list("merges")) {
      list_ = List::kMerges;
      document_.has_merges = true;
      return true;
    }
    push(json::array());
    return true;
  }

  bool end_array() {
    --depth_;
    if (list_ == List::kPair) {
      if (pair_strings_ != 2) list_fault();
      document_.merge_is_pair.push_back(true);
      list_ = List::kMerges;
      return true;
    }
    if (list_ == List::kScored) {
      if (document_.vocab_scores.size() != scored_ + 1) list_fault();
      ++scored_;
      list_ = List::kScores;
      return true;
    }
    if (list_ == List::kMerges || list_ == List::kScores) {
      list_ = List::kNone;
      return true;
    }
    stack_.pop_back();
    return true;
  }

  bool parse_error(size_t at, const std::string&, const json::exception&) {
    throw_corrupt_at(file_, "", "is not valid JSON at byte " + std::to_string(at));
  }

 private:
  // kPair and kScored: inside a member of the list before.
  enum class List { kNone, kVocab, kMerges, kPair, kScores, kScored };
  static constexpr int kMaxDepth = 64;

  void deeper() {
    if (++depth_ > kMaxDepth) {
      throw_corrupt_at(file_, "", "is nested deeper than " + std::to_string(kMaxDepth));
    }
  }

  // Whether the value that begins now is the member `name` of the object "model".
  bool at_list(const char* name) const {
    if (stack_.size() != 2 || !stack_.back()->is_object() || top_key_ != "model" || key_ != name) {
      return false;
    }
    if (key_ == "vocab" ? document_.has_vocab || document_.has_scores : document_.has_merges) {
      throw_corrupt_at(file_, "", "the key " + key_ + " is listed twice");
    }
    return true;
  }

  [[noreturn]] void list_fault() const {
    if (list_ == List::kVocab) {
      throw_corrupt_at(file_,
                       "model.vocab." + shown(document_.vocab_tokens[document_.vocab_ids.size()]),
                       "must be an integer");
    }
    if (list_ == List::kScores || list_ == List::kScored) {
      throw_corrupt_at(file_, "model.vocab[" + std::to_string(scored_) + "]",
                       "must be a token and its score");
    }
    throw_corrupt_at(file_, "model.merges[" + std::to_string(document_.merge_is_pair.size()) + "]",
                     "must be \"left right\" or two strings");
  }

  bool add_id(int64_t id) {
    document_.vocab_ids.push_back(id);
    return true;
  }

  bool add_score(double score) {
    document_.vocab_scores.push_back(score);
    if (document_.vocab_scores.size() != document_.vocab_tokens.size()) list_fault();
    return true;
  }

  json& place(json&& v) {
    if (stack_.empty()) return document_.root = std::move(v);
    json& parent = *stack_.back();
    if (parent.is_object()) return parent[key_] = std::move(v);
    parent.push_back(std::move(v));
    return parent.back();
  }

  // A container's address holds while it is filled: only the innermost one grows.
  void push(json&& v) { stack_.push_back(&place(std::move(v))); }

  bool value(json&& v) {
    if (list_ != List::kNone) list_fault();
    place(std::move(v));
    return true;
  }

  TokenizerDocument& document_;
  const std::string& file_;
  std::vector<json*> stack_;  // open containers of the tree
  std::string key_, top_key_;
  List list_ = List::kNone;
  int pair_strings_ = 0;
  size_t scored_ = 0;  // whole members of model.vocab
  int depth_ = 0;
};

}  // namespace

TokenizerDocument parse_tokenizer_json(std::string_view text, const std::string& file) {
  TokenizerDocument document;
  Builder builder(document, file);
  if (!json::sax_parse(text, &builder)) throw_corrupt_at(file, "", "is not valid JSON");
  if (!document.root.is_object()) throw_corrupt_at(file, "", "must hold a JSON object");
  return document;
}

}  // namespace llorch::tok
