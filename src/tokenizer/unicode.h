// UTF-8 and character classes as the tokenizers library sees them. Knows nothing of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llorch::tok {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What stands at one place of arbitrary bytes. kInvalid: `bytes` of them are the longest part that
// could have begun a character (one U+FFFD). kUnfinished: the text ends inside a character.
struct Utf8Step {
  enum class Kind { kValid, kInvalid, kUnfinished } kind;
  size_t bytes;
};
Utf8Step step_utf8(std::string_view bytes, size_t at);

bool is_valid_utf8(std::string_view bytes);
// One U+FFFD for each maximal invalid part, as Python's errors="replace" and Rust's lossy decoding.
std::string to_valid_utf8(std::string_view bytes);

// The functions below take valid UTF-8 and a place where a character begins.
inline size_t char_bytes(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
char32_t char_at(std::string_view text, size_t at);
// Where the character before `at` begins; `at` must not be 0.
size_t char_before(std::string_view text, size_t at);
void append_utf8(std::string& out, char32_t c);
size_t count_chars(std::string_view text);
// The text's only character, or 0 where it has none or several.
char32_t only_char(std::string_view text);

bool is_whitespace(char32_t c);  // White_Space
bool is_numeric(char32_t c);     // Nd, Nl, No
bool is_punctuation(
    char32_t c);  // ASCII punctuation and P*, as the Punctuation pre-tokenizer has it
bool is_combining_mark(char32_t c);   // M*, as the StripAccents normalizer has it
bool is_nonspacing_mark(char32_t c);  // Mn, as the BertNormalizer has it
bool is_other(char32_t c);            // Cc, Cf, Co, as the BertNormalizer has it
void append_lowercase(std::string& out, char32_t c);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view text, NormalForm form);

// Cuts valid UTF-8 into extended grapheme clusters. `text` must outlive it.
class GraphemeBreaker {
 public:
  explicit GraphemeBreaker(std::string_view text) : text_(text) {}
  size_t next();  // where the next cluster ends; there must be one

 private:
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace llorch::tok
