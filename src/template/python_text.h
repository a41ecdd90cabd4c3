// Python's view of text on UTF-8: characters, classes, case, and what its str methods do. A lone
// surrogate may stand as three bytes. Knows no Value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch::tmpl {

size_t count_chars(std::string_view text);
// Bytes of the character that begins at `at`.
inline size_t char_bytes(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return n < text.size() - at ? n : text.size() - at;
}
char32_t char_at(std::string_view text, size_t at);
size_t char_before(std::string_view text, size_t at);  // where it begins; at > 0
void append_char(std::string& out, char32_t c);
void append_escape(std::string& out, char32_t c);  // \xe9, \u20ac, \U0001f642
// Byte offset of character `index`, or the text's size.
size_t offset_of_char(std::string_view text, size_t index);
std::vector<std::string_view> chars_of(std::string_view text);
bool has_surrogate(std::string_view text);
bool is_valid_text(std::string_view text);  // UTF-8, surrogates included

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_printable(char32_t c);
bool is_word(char32_t c);  // \w
bool is_identifier(std::string_view text);
int decimal_value(char32_t c);  // of is_decimal

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swapcase(std::string_view text);
std::string casefold(std::string_view text);

// No `chars`: whitespace.
std::string_view strip_left(std::string_view text, std::optional<std::string_view> chars = {});
std::string_view strip_right(std::string_view text, std::optional<std::string_view> chars = {});
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
// split() and rsplit(); no `separator`: runs of whitespace. limit < 0: none.
std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t limit);
std::vector<std::string_view> split_right(std::string_view text,
                                          std::optional<std::string_view> separator, int64_t limit);
// As string_view::find, in linear time whatever the text.
size_t find_text(std::string_view text, std::string_view what, size_t from = 0);
size_t find_last(std::string_view text, std::string_view what);
std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit);

std::string repr(std::string_view text);          // of a str
std::string html_escaped(std::string_view text);  // markupsafe.escape

}  // namespace llorch::tmpl
