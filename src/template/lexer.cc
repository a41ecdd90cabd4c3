#include "template/lexer.h"

#include <algorithm>

#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

constexpr size_t kMostTokens = 500'000;

// Line ends become \n, and one at the end goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), text_(source_) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) root();
    add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw SyntaxError(line_, what); }

  void add(TokenType type, std::string text, Value value = Value()) {
    if (tokens_.size() >= kMostTokens) fail("the template is too long");
    tokens_.push_back({type, line_, std::move(text), std::move(value)});
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    line_starting_ = to > at_ ? text_[to - 1] == '\n' : line_starting_;
    at_ = to;
  }

  size_t skip_space(size_t at) const {
    while (at < text_.size() && is_space(char_at(text_, at))) at += char_bytes(text_, at);
    return at;
  }

  bool starts(size_t at, std::string_view what) const {
    return text_.compare(at, what.size(), what) == 0;
  }

  // Where a tag's content begins, if {% raw %} stands at `at`; npos if not.
  size_t raw_content(size_t at) const {
    at += 2;
    if (at < text_.size() && (text_[at] == '-' || text_[at] == '+')) ++at;
    at = skip_space(at);
    if (!starts(at, "raw")) return text_.npos;
    at = skip_space(at + 3);
    if (starts(at, "-%}")) return skip_space(at + 3);
    return starts(at, "%}") ? at + 2 : text_.npos;
  }

  // Template data up to the tag at `tag`, whose sign decides what whitespace stays.
  void data(size_t tag, char sign, bool is_variable) {
    std::string_view piece = text_.substr(at_, tag - at_);
    if (sign == '-') {
      piece = strip_right(piece);
    } else if (sign != '+' && !is_variable) {
      const size_t line_begin = piece.rfind('\n') + 1;  // npos + 1 is 0
      if (line_begin > 0 || line_starting_) {
        const auto rest = piece.substr(line_begin);
        if (strip_left(rest).empty()) piece = piece.substr(0, line_begin);
      }
    }
    if (!piece.empty()) add(TokenType::kData, std::string(piece));
    advance(tag);
  }

  char sign_at(size_t at) const {
    return at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : ' ';
  }

  void root() {
    size_t tag = at_;
    while (true) {
      tag = text_.find('{', tag);
      if (tag == text_.npos ||
          (tag + 1 < text_.size() &&
           (text_[tag + 1] == '{' || text_[tag + 1] == '%' || text_[tag + 1] == '#'))) {
        break;
      }
      ++tag;
    }
    if (tag == text_.npos) {
      add(TokenType::kData, std::string(text_.substr(at_)));
      advance(text_.size());
      return;
    }
    const char kind = text_[tag + 1], sign = sign_at(tag + 2);
    const size_t raw = kind == '%' ? raw_content(tag) : text_.npos;
    data(tag, sign, kind == '{');
    if (raw != text_.npos) {
      advance(raw);
      raw_block();
      return;
    }
    const size_t content = tag + (sign == ' ' ? 2 : 3);
    if (kind == '#') {
      advance(content);
      comment();
    } else if (kind == '{') {
      add(TokenType::kVariableBegin, "");
      advance(content);
      code(true);
    } else {
      add(TokenType::kBlockBegin, "");
      advance(content);
      code(false);
    }
  }

  // The end of a tag at `at`: behind it and what goes with it.
  size_t tag_end(size_t at, std::string_view close, bool plus_allowed, bool trim) const {
    if (text_[at] == '-' && starts(at + 1, close)) return skip_space(at + 1 + close.size());
    if (plus_allowed && text_[at] == '+' && starts(at + 1, close)) return at + 1 + close.size();
    if (!starts(at, close)) return text_.npos;
    const size_t end = at + close.size();
    return trim && end < text_.size() && text_[end] == '\n' ? end + 1 : end;
  }

  // A comment or raw block that ends with the template right behind its tag is no error.
  void comment() {
    if (at_ == text_.size()) return;
    for (size_t at = at_; at < text_.size(); ++at) {
      if (text_[at] != '-' && text_[at] != '+' && text_[at] != '#') continue;
      const size_t end = tag_end(at, "#}", true, true);
      if (end != text_.npos) return advance(end);
    }
    fail("Missing end of comment tag");
  }

  void raw_block() {
    if (at_ == text_.size()) return;
    for (size_t tag = text_.find("{%", at_); tag != text_.npos; tag = text_.find("{%", tag + 1)) {
      const char sign = sign_at(tag + 2);
      size_t at = skip_space(tag + (sign == ' ' ? 2 : 3));
      if (!starts(at, "endraw")) continue;
      at = skip_space(at + 6);
      const size_t end = at < text_.size() ? tag_end(at, "%}", true, true) : text_.npos;
      if (end == text_.npos) continue;
      data(tag, sign, false);
      return advance(end);
    }
    fail("Missing end of raw directive");
  }

  void code(bool variable) {
    std::string open;  // the closing signs that are due
    while (at_ < text_.size()) {
      if (open.empty()) {
        const size_t end =
            variable ? tag_end(at_, "}}", false, false) : tag_end(at_, "%}", true, true);
        if (end != text_.npos) {
          add(variable ? TokenType::kVariableEnd : TokenType::kBlockEnd, "");
          return advance(end);
        }
      }
      const size_t space = skip_space(at_);
      if (space > at_) {
        advance(space);
      } else if (!number() && !word() && !string()) {
        operation(open);
      }
    }
  }

  // (\d+_)*\d+ from `at`; `at` itself if there is none.
  size_t digits(size_t at) const {
    size_t end = at;
    while (end < text_.size() && is_ascii_digit(text_[end])) {
      while (end < text_.size() && is_ascii_digit(text_[end])) ++end;
      if (end + 1 < text_.size() && text_[end] == '_' && is_ascii_digit(text_[end + 1])) {
        ++end;
      } else {
        break;
      }
    }
    return end;
  }

  size_t float_end() const {
    if (at_ > 0 && text_[at_ - 1] == '.') return text_.npos;
    const size_t whole = digits(at_);
    if (whole == at_) return text_.npos;
    size_t end = whole;
    if (end < text_.size() && text_[end] == '.') {
      const size_t fraction = digits(end + 1);
      if (fraction > end + 1) end = fraction;
    }
    const bool has_fraction = end > whole;
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      const size_t exponent_end = digits(exponent);
      if (exponent_end > exponent) return exponent_end;
    }
    return has_fraction ? end : text_.npos;
  }

  // After 0b, 0o or 0x: (_?digit)+
  size_t prefixed_end(const char* allowed) const {
    size_t end = at_ + 2;
    const std::string_view set(allowed);
    while (end < text_.size()) {
      size_t digit = text_[end] == '_' ? end + 1 : end;
      if (digit >= text_.size() || set.find(text_[digit]) == set.npos) break;
      end = digit + 1;
    }
    return end > at_ + 2 ? end : text_.npos;
  }

  size_t integer_end() const {
    if (!is_ascii_digit(text_[at_])) return text_.npos;
    if (text_[at_] != '0') return digits(at_);
    if (at_ + 1 < text_.size()) {
      const char prefix = static_cast<char>(text_[at_ + 1] | 0x20);
      size_t end = text_.npos;
      if (prefix == 'b') end = prefixed_end("01");
      if (prefix == 'o') end = prefixed_end("01234567");
      if (prefix == 'x') end = prefixed_end("0123456789abcdefABCDEF");
      if (end != text_.npos) return end;
    }
    size_t end = at_ + 1;
    while (end < text_.size()) {
      const size_t zero = text_[end] == '_' ? end + 1 : end;
      if (zero >= text_.size() || text_[zero] != '0') break;
      end = zero + 1;
    }
    return end;
  }

  bool number() {
    size_t end = float_end();
    const bool is_float = end != text_.npos;
    if (!is_float) end = integer_end();
    if (end == text_.npos) return false;
    std::string digits(text_.substr(at_, end - at_));
    std::erase(digits, '_');
    Value value;
    if (is_float) {
      const auto parsed = parse_float(digits);
      value = Value::number(parsed.value_or(0));
    } else {
      value = parse_integer(digits, 0);
      if (value.is_missing()) fail("an integer is too long");
    }
    add(TokenType::kNumber, is_float ? "float" : "integer", value);
    advance(end);
    return true;
  }

  bool word() {
    size_t end = at_;
    while (end < text_.size()) {
      const char32_t c = char_at(text_, end);
      // The pattern takes what \w leaves out of identifiers; the check below refuses the rest.
      if (!is_word(c) && !(c >= 0x80 && is_identifier("a" + std::string(text_.substr(
                                                                end, char_bytes(text_, end)))))) {
        break;
      }
      end += char_bytes(text_, end);
    }
    if (end == at_) return false;
    const auto name = text_.substr(at_, end - at_);
    if (!is_identifier(name)) fail("Invalid character in identifier");
    add(TokenType::kName, std::string(name));
    advance(end);
    return true;
  }

  bool string() {
    const char quote = text_[at_];
    if (quote != '\'' && quote != '"') return false;
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) return false;
    add(TokenType::kString, unescaped(text_.substr(at_ + 1, end - at_ - 1)));
    advance(end + 1);
    return true;
  }

  // Hex digits of an escape at `at`, exactly `count`.
  char32_t escape_digits(std::string_view body, size_t at, size_t count) const {
    char32_t c = 0;
    if (count > body.size() - at) fail("truncated escape in a string");
    for (size_t i = 0; i < count; ++i) {
      const char d = body[at + i];
      const int value = is_ascii_digit(d)                        ? d - '0'
                        : (d | 0x20) >= 'a' && (d | 0x20) <= 'f' ? (d | 0x20) - 'a' + 10
                                                                 : -1;
      if (value < 0) fail("truncated escape in a string");
      c = c * 16 + static_cast<char32_t>(value);
    }
    if (c > 0x10FFFF) fail("illegal Unicode character");
    return c;
  }

  // Python's unicode-escape.
  std::string unescaped(std::string_view body) const {
    std::string out;
    for (size_t i = 0; i < body.size();) {
      if (body[i] != '\\') {
        out += body[i++];
        continue;
      }
      const char e = body[i + 1];
      i += 2;
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t known = kFrom.find(e); known != kFrom.npos) {
        out += kTo[known];
      } else if (e == '\n') {
      } else if (e >= '0' && e <= '7') {
        char32_t c = static_cast<char32_t>(e - '0');
        for (int more = 0; more < 2 && i < body.size() && body[i] >= '0' && body[i] <= '7';
             ++more) {
          c = c * 8 + static_cast<char32_t>(body[i++] - '0');
        }
        append_char(out, c);
      } else if (e == 'x' || e == 'u' || e == 'U') {
        const size_t count = e == 'x' ? 2 : e == 'u' ? 4 : 8;
        append_char(out, escape_digits(body, i, count));
        i += count;
      } else if (e == 'N') {
        fail("\\N{...} in a string is not supported");
      } else if (static_cast<unsigned char>(e) >= 0x80) {
        // jinja2 has made an escape of the character by then, whose backslash this one escapes.
        append_escape(out, char_at(body, i - 1));
        i += char_bytes(body, i - 1) - 1;
      } else {
        out += '\\';
        out += e;
      }
    }
    return out;
  }

  void operation(std::string& open) {
    static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kOne = "+-/*%~[](){}><=.:|,;";
    std::string_view op;
    for (const auto two : kTwo) {
      if (starts(at_, two)) op = text_.substr(at_, 2);
    }
    if (op.empty() && kOne.find(text_[at_]) != kOne.npos) op = text_.substr(at_, 1);
    if (op.empty()) {
      fail("unexpected char " + repr(text_.substr(at_, char_bytes(text_, at_))));
    }
    if (op == "(" || op == "[" || op == "{") {
      open += op == "(" ? ')' : op == "[" ? ']' : '}';
    } else if (op == ")" || op == "]" || op == "}") {
      if (open.empty()) fail("unexpected '" + std::string(op) + "'");
      if (open.back() != op[0]) {
        fail("unexpected '" + std::string(op) + "', expected '" + open.back() + "'");
      }
      open.pop_back();
    }
    add(TokenType::kOperator, std::string(op));
    advance(at_ + op.size());
  }

  const std::string source_;
  const std::string_view text_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (!is_valid_text(source) || has_surrogate(source)) throw SyntaxError(1, "not UTF-8");
  return Lexer(source).run();
}

}  // namespace llorch::tmpl
