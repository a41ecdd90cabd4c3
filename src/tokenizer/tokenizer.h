// Text to token ids and back, as the tokenizers library does it. Knows nothing of models or files:
// it is given a file's contents.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/gguf_vocabulary.h"

namespace llorch {

// Immutable once made; every member may be called from any thread.
class Tokenizer {
 public:
  // Throws Error{kCorruptFile} where the JSON is damaged or contradicts itself, Error{kUnsupported}
  // that names a component this reader has not got. `file` names the source in messages.
  static Tokenizer from_json(std::string_view json, const std::string& file);
  // From a SentencePiece file (tokenizer.model) and the text of tokenizer_config.json, which may be
  // empty: the ids that transformers gives for a folder without tokenizer.json. Throws as
  // from_json().
  static Tokenizer from_sentencepiece(std::string_view model, std::string_view tokenizer_config,
                                      const std::string& file);
  // From a GGUF file's metadata: the ids of the tokenizer.json that it was converted from. Throws
  // as from_json(), naming the key.
  static Tokenizer from_gguf(const GgufVocabulary& vocabulary, const std::string& file);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  struct EncodeOptions {
    bool add_special_tokens = true;  // runs the post-processor
    bool parse_special = true;       // text of a special token becomes that token
  };
  // Bytes that are not UTF-8 are encoded as U+FFFD, one for each maximal invalid part. Throws
  // Error{kBadRequest} if the text is over 128 MiB or takes a pattern of the file too much work,
  // Error{kUnsupported} if it needs an unknown token that the vocabulary lacks.
  std::vector<int32_t> encode(std::string_view utf8, EncodeOptions options) const;
  std::vector<int32_t> encode(std::string_view utf8) const { return encode(utf8, {}); }

  // decode(ids, skip_special_tokens) of the tokenizers library, its decoder included. Ids out of
  // range are passed over.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  int32_t vocab_size() const;  // one above the highest id, added tokens included
  std::optional<int32_t> token_id(std::string_view content) const;
  bool is_special(int32_t id) const;
  // The bytes an id stands for inside running text (not at its start), before UTF-8 is made whole:
  // byte-level and byte-fallback tokens give raw bytes, a SentencePiece mark gives a space.
  // Empty for ids out of range. Concatenated over ids, this is the streamed text.
  std::string_view token_bytes(int32_t id) const;
  // Of bytes that are not UTF-8 each one is a U+FFFD, as byte-fallback tokens are decoded; else
  // each part that could have begun a character, as byte-level ones are.
  bool replaces_each_byte() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  template <typename Read>
  static Tokenizer make(const std::string& file, const Read& read);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace llorch
