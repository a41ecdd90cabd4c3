#include "template/python_text.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <span>

#include <utf8proc.h>

#include "template/budget.h"
#include "template/value.h"

namespace llorch::tmpl {

size_t count_chars(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

char32_t char_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[at + i]));
  };
  switch (char_bytes(text, at)) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

size_t char_before(std::string_view text, size_t at) {
  --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

void append_char(std::string& out, char32_t c) {
  const auto add = [&out](char32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | c >> 6);
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3F));
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

size_t offset_of_char(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += char_bytes(text, at);
  spend_scan(at);
  return at;
}

std::vector<std::string_view> chars_of(std::string_view text) {
  spend_scan(text.size());
  std::vector<std::string_view> chars;
  for (size_t at = 0; at < text.size();) {
    const size_t n = char_bytes(text, at);
    chars.push_back(text.substr(at, n));
    at += n;
  }
  return chars;
}

bool has_surrogate(std::string_view text) {
  for (size_t at = text.find('\xED'); at != text.npos; at = text.find('\xED', at + 1)) {
    if (at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) >= 0xA0) return true;
  }
  return false;
}

bool is_valid_text(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t n = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (n == 0 || lead > 0xF4 || n > text.size() - at) return false;
    for (size_t i = 1; i < n; ++i) {
      if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return false;
    }
    const char32_t c = char_at(text, at);
    if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10FFFF))) return false;
    at += n;
  }
  return true;
}

namespace {

template <class Strip>
std::string_view strip_while(std::string_view text, Strip goes, bool left) {
  const size_t before = text.size();
  while (!text.empty()) {
    const size_t at = left ? 0 : char_before(text, text.size());
    if (!goes(char_at(text, at))) break;
    if (left) {
      text.remove_prefix(char_bytes(text, 0));
    } else {
      text = text.substr(0, at);
    }
  }
  spend_scan(before - text.size());
  return text;
}

std::string_view strip_side(std::string_view text, std::optional<std::string_view> chars,
                            bool left) {
  if (!chars) return strip_while(text, is_space, left);
  std::vector<char32_t> set;
  for (size_t at = 0; at < chars->size(); at += char_bytes(*chars, at)) {
    set.push_back(char_at(*chars, at));
  }
  std::sort(set.begin(), set.end());
  const auto in_set = [&set](char32_t c) { return std::binary_search(set.begin(), set.end(), c); };
  return strip_while(text, in_set, left);
}

bool is_line_end(char32_t c) {
  return (c >= 0xA && c <= 0xD) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

std::vector<std::string_view> split_spaces(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  spend_scan(text.size());
  text = strip_left(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(char_at(text, end))) end += char_bytes(text, end);
    parts.push_back(text.substr(0, end));
    text = strip_left(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> split_spaces_right(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  spend_scan(text.size());
  text = strip_right(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const size_t before = char_before(text, begin);
      if (is_space(char_at(text, before))) break;
      begin = before;
    }
    parts.push_back(text.substr(begin));
    text = strip_right(text.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::string_view strip_left(std::string_view text, std::optional<std::string_view> chars) {
  return strip_side(text, chars, true);
}

std::string_view strip_right(std::string_view text, std::optional<std::string_view> chars) {
  return strip_side(text, chars, false);
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  spend_scan(text.size());
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = char_at(text, at);
    size_t end = at + char_bytes(text, at);
    if (is_line_end(c)) {
      if (c == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back(text.substr(begin, (keep_ends ? end : at) - begin));
      begin = end;
    }
    at = end;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t limit) {
  if (!separator) return split_spaces(text, limit);
  if (separator->empty()) throw Failure("empty separator");
  std::vector<std::string_view> parts;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = find_text(text, *separator, begin);
    if (at == text.npos) break;
    parts.push_back(text.substr(begin, at - begin));
    begin = at + separator->size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_right(std::string_view text,
                                          std::optional<std::string_view> separator,
                                          int64_t limit) {
  if (!separator) return split_spaces_right(text, limit);
  if (separator->empty()) throw Failure("empty separator");
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = find_last(text, *separator);
    if (at == text.npos) break;
    parts.push_back(text.substr(at + separator->size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

namespace {

// Knuth, Morris and Pratt: only the length of `what` bounds what the plain search repeats.
size_t find_long(std::string_view text, std::string_view what, size_t from) {
  std::vector<uint32_t> fall(what.size(), 0);
  for (size_t i = 1, k = 0; i < what.size(); ++i) {
    while (k > 0 && what[i] != what[k]) k = fall[k - 1];
    if (what[i] == what[k]) ++k;
    fall[i] = static_cast<uint32_t>(k);
  }
  for (size_t i = from, k = 0; i < text.size(); ++i) {
    while (k > 0 && text[i] != what[k]) k = fall[k - 1];
    if (text[i] == what[k]) ++k;
    if (k == what.size()) return i + 1 - k;
  }
  return text.npos;
}

}  // namespace

size_t find_text(std::string_view text, std::string_view what, size_t from) {
  constexpr size_t kShort = 16;
  if (from > text.size() || what.size() > text.size() - from) return text.npos;
  const bool is_short = what.size() <= kShort;
  const size_t at = is_short ? text.find(what, from) : find_long(text, what, from);
  const size_t scanned = (at == text.npos ? text.size() : at) - from;
  spend_scan(is_short ? scanned : scanned + what.size());
  spend_steps(1);
  return at;
}

size_t find_last(std::string_view text, std::string_view what) {
  if (what.size() > text.size()) return text.npos;
  // The plain search compares up to all of `what` at each place.
  spend_scan(text.size() / 4);
  spend_steps(text.size() * what.size() / 4096);
  return text.rfind(what);
}

std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit) {
  std::string out;
  size_t begin = 0;
  int64_t done = 0;
  if (from.empty()) {
    // Before each character and at the end.
    while (limit < 0 || done < limit) {
      check_fits(out.size() + to.size());
      out += to;
      ++done;
      if (begin == text.size()) return out;
      const size_t n = char_bytes(text, begin);
      out += text.substr(begin, n);
      begin += n;
    }
    return out.append(text.substr(begin));
  }
  while (limit < 0 || done < limit) {
    const size_t at = find_text(text, from, begin);
    if (at == text.npos) break;
    check_fits(out.size() + to.size() + at - begin);
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
    ++done;
  }
  return out.append(text.substr(begin));
}

void append_escape(std::string& out, char32_t c) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer,
                c < 0x100     ? "\\x%02x"
                : c < 0x10000 ? "\\u%04x"
                              : "\\U%08x",
                static_cast<unsigned>(c));
  out += buffer;
}

std::string repr(std::string_view text) {
  spend_scan(text.size());
  const bool double_quotes = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t n = char_bytes(text, at);
    const char32_t c = char_at(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      out += text.substr(at, n);
    } else {
      append_escape(out, c);
    }
    at += n;
  }
  return out + quote;
}

std::string html_escaped(std::string_view text) {
  spend_scan(text.size());
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace llorch::tmpl
