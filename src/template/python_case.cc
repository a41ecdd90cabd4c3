// The parts of python_text.h that need Unicode's data: character classes and case.
#include <algorithm>
#include <iterator>
#include <span>

#include <utf8proc.h>

#include "template/budget.h"
#include "template/case_table.h"
#include "template/python_text.h"

namespace llorch::tmpl {
namespace {

struct Span {
  char32_t first, last;
};

bool contains(std::span<const Span> spans, char32_t c) {
  const auto after = std::upper_bound(
      spans.begin(), spans.end(), c, [](char32_t value, const Span& s) { return value < s.first; });
  return after != spans.begin() && c <= std::prev(after)->last;
}

// Numeric_Type=Digit that is not a decimal digit.
constexpr Span kDigits[] = {
    {0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
    {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
    {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A},
};

// Numeric_Type=Numeric outside of the categories of numbers: ideographs.
constexpr Span kNumericIdeographs[] = {
    {0x3405, 0x3405},   {0x3483, 0x3483},   {0x382A, 0x382A},   {0x3B4D, 0x3B4D},
    {0x4E00, 0x4E00},   {0x4E03, 0x4E03},   {0x4E07, 0x4E07},   {0x4E09, 0x4E09},
    {0x4E5D, 0x4E5D},   {0x4E8C, 0x4E8C},   {0x4E94, 0x4E94},   {0x4E96, 0x4E96},
    {0x4EBF, 0x4EC0},   {0x4EDF, 0x4EDF},   {0x4EE8, 0x4EE8},   {0x4F0D, 0x4F0D},
    {0x4F70, 0x4F70},   {0x5104, 0x5104},   {0x5146, 0x5146},   {0x5169, 0x5169},
    {0x516B, 0x516B},   {0x516D, 0x516D},   {0x5341, 0x5341},   {0x5343, 0x5345},
    {0x534C, 0x534C},   {0x53C1, 0x53C4},   {0x56DB, 0x56DB},   {0x58F1, 0x58F1},
    {0x58F9, 0x58F9},   {0x5E7A, 0x5E7A},   {0x5EFE, 0x5EFF},   {0x5F0C, 0x5F0E},
    {0x5F10, 0x5F10},   {0x62FE, 0x62FE},   {0x634C, 0x634C},   {0x67D2, 0x67D2},
    {0x6F06, 0x6F06},   {0x7396, 0x7396},   {0x767E, 0x767E},   {0x8086, 0x8086},
    {0x842C, 0x842C},   {0x8CAE, 0x8CAE},   {0x8CB3, 0x8CB3},   {0x8D30, 0x8D30},
    {0x9621, 0x9621},   {0x9646, 0x9646},   {0x964C, 0x964C},   {0x9678, 0x9678},
    {0x96F6, 0x96F6},   {0xF96B, 0xF96B},   {0xF973, 0xF973},   {0xF978, 0xF978},
    {0xF9B2, 0xF9B2},   {0xF9D1, 0xF9D1},   {0xF9D3, 0xF9D3},   {0xF9FD, 0xF9FD},
    {0x20001, 0x20001}, {0x20064, 0x20064}, {0x200E2, 0x200E2}, {0x20121, 0x20121},
    {0x2092A, 0x2092A}, {0x20983, 0x20983}, {0x2098C, 0x2098C}, {0x2099C, 0x2099C},
    {0x20AEA, 0x20AEA}, {0x20AFD, 0x20AFD}, {0x20B19, 0x20B19}, {0x22390, 0x22390},
    {0x22998, 0x22998}, {0x23B1B, 0x23B1B}, {0x2626D, 0x2626D}, {0x2F890, 0x2F890},
};

constexpr Span kOtherLowercase[] = {
    {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},
    {0x2E0, 0x2E4},     {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},
    {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},   {0x207F, 0x207F},
    {0x2090, 0x209C},   {0x2170, 0x217F},   {0x24D0, 0x24E9},   {0x2C7C, 0x2C7D},
    {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
};

constexpr Span kOtherUppercase[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
};

// Word_Break MidLetter, MidNumLet and Single_Quote: ignored where a final sigma is looked for.
constexpr Span kWithinWords[] = {
    {0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
    {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
    {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
    {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A},
};

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }

bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return contains(kWithinWords, c);
  }
}

bool is_final_sigma(std::string_view text, size_t at) {
  size_t before = at;
  bool cased = false;
  while (before > 0 && !cased) {
    before = char_before(text, before);
    const char32_t c = char_at(text, before);
    if (is_case_ignorable(c)) continue;
    if (!is_cased(c)) return false;
    cased = true;
  }
  if (!cased) return false;
  for (size_t after = at + char_bytes(text, at); after < text.size();
       after += char_bytes(text, after)) {
    const char32_t c = char_at(text, after);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

bool append_expansion(std::string& out, std::span<const Expansion> table, char32_t c) {
  const auto at =
      std::lower_bound(table.begin(), table.end(), c,
                       [](const Expansion& e, char32_t value) { return e.from < value; });
  if (at == table.end() || at->from != c) return false;
  for (const char32_t to : at->to) {
    if (to != 0) append_char(out, to);
  }
  return true;
}

void append_upper(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  } else if (!append_expansion(out, kUpperExpansions, c)) {
    append_char(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_title(std::string& out, char32_t c) {
  if (!append_expansion(out, kTitleExpansions, c)) {
    append_char(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_lower(std::string& out, std::string_view text, size_t at) {
  const char32_t c = char_at(text, at);
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x130) {
    out += "i\xCC\x87";
  } else if (c == 0x3A3) {
    append_char(out, is_final_sigma(text, at) ? 0x3C2 : 0x3C3);
  } else {
    append_char(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

template <class Append>
std::string map_chars(std::string_view text, Append append) {
  spend_scan(text.size() * 2);
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) append(out, at);
  return out;
}

}  // namespace

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_alpha(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(char32_t c) { return is_decimal(c) || contains(kDigits, c); }

bool is_numeric(char32_t c) {
  if (c < 0x80) return is_decimal(c);
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO ||
         contains(kNumericIdeographs, c);
}

bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }

bool is_lower(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return category(c) == UTF8PROC_CATEGORY_LL || contains(kOtherLowercase, c);
}

bool is_upper(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return category(c) == UTF8PROC_CATEGORY_LU || contains(kOtherUppercase, c);
}

bool is_title(char32_t c) { return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT; }

bool is_printable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c != 0x7F;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_word(char32_t c) { return c == '_' || is_alnum(c); }

bool is_identifier(std::string_view text) {
  if (text.empty()) return false;
  spend_scan(text.size());
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    const auto k = category(c);
    const bool start = c == '_' || is_alpha(c) || k == UTF8PROC_CATEGORY_NL;
    const bool inside = start || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
                        k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_PC || c == 0xB7 ||
                        c == 0x387;
    if (at == 0 ? !start : !inside) return false;
  }
  return true;
}

int decimal_value(char32_t c) {
  // Decimal digits stand in runs of ten, each in order.
  int before = 0;
  while (is_decimal(c - 1)) {
    --c;
    ++before;
  }
  return before % 10;
}

std::string upper(std::string_view text) {
  return map_chars(text,
                   [&](std::string& out, size_t at) { append_upper(out, char_at(text, at)); });
}

std::string lower(std::string_view text) {
  return map_chars(text, [&](std::string& out, size_t at) { append_lower(out, text, at); });
}

std::string title(std::string_view text) {
  bool within = false;
  return map_chars(text, [&](std::string& out, size_t at) {
    const char32_t c = char_at(text, at);
    if (within) {
      append_lower(out, text, at);
    } else {
      append_title(out, c);
    }
    within = is_cased(c);
  });
}

std::string capitalize(std::string_view text) {
  return map_chars(text, [&](std::string& out, size_t at) {
    if (at == 0) {
      append_title(out, char_at(text, at));
    } else {
      append_lower(out, text, at);
    }
  });
}

std::string swapcase(std::string_view text) {
  return map_chars(text, [&](std::string& out, size_t at) {
    const char32_t c = char_at(text, at);
    if (is_upper(c)) {
      append_lower(out, text, at);
    } else if (is_lower(c)) {
      append_upper(out, c);
    } else {
      append_char(out, c);
    }
  });
}

std::string casefold(std::string_view text) {
  return map_chars(text, [&](std::string& out, size_t at) {
    utf8proc_int32_t folded[8];
    int boundary = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(char_at(text, at)), folded,
                                           8, UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; ++i) {
      append_char(out, static_cast<char32_t>(folded[i]));
    }
  });
}

}  // namespace llorch::tmpl
