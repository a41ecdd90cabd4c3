#include "template/format_spec.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

constexpr int64_t kMostPrecision = 1000;

bool is_align(char c) { return c == '<' || c == '>' || c == '=' || c == '^'; }

// Digits in groups, with zeros before them up to `width` if that is asked.
std::string grouped(std::string digits, char separator, size_t group, int64_t width) {
  if (separator == 0) return digits;
  // In groups of four come binary, octal and hexadecimal digits, of three decimal ones.
  const char* const set = group == 4 ? "0123456789abcdefABCDEF" : "0123456789";
  const size_t end = std::min(digits.find_first_not_of(set), digits.size());
  std::string whole = digits.substr(0, end), rest = digits.substr(end), out;
  size_t count = 0;
  const auto add = [&](char c) {
    if (count > 0 && count % group == 0) out += separator;
    out += c;
    ++count;
  };
  for (auto at = whole.rbegin(); at != whole.rend(); ++at) add(*at);
  check_fits(static_cast<uint64_t>(std::max<int64_t>(width, 0)));
  while (static_cast<int64_t>(out.size() + rest.size()) < width) add('0');
  std::reverse(out.begin(), out.end());
  return out + rest;
}

std::string printed(const char* format, int precision, double d) {
  const int n = std::snprintf(nullptr, 0, format, precision, d);
  std::string out(static_cast<size_t>(n) + 1, '\0');
  std::snprintf(out.data(), out.size(), format, precision, d);
  out.pop_back();
  return out;
}

// Digits of |d| for one of e, f, g and what is like them.
std::string float_digits(double d, char type, int64_t precision, bool alternate) {
  if (precision > kMostPrecision) throw Failure("precision too big");
  const bool upper = type >= 'A' && type <= 'Z';
  d = std::fabs(d);
  if (!std::isfinite(d)) {
    const std::string name = std::isnan(d) ? "nan" : "inf";
    return type == '%' ? name + "%" : upper ? (std::isnan(d) ? "NAN" : "INF") : name;
  }
  const auto p = static_cast<int>(precision < 0 ? 6 : precision);
  switch (type) {
    case 'e':
      return printed(alternate ? "%#.*e" : "%.*e", p, d);
    case 'E':
      return printed(alternate ? "%#.*E" : "%.*E", p, d);
    case 'g':
      return printed(alternate ? "%#.*g" : "%.*g", p, d);
    case 'G':
      return printed(alternate ? "%#.*G" : "%.*G", p, d);
    case '%':
      return printed(alternate ? "%#.*f" : "%.*f", p, d * 100) + "%";
    default:
      return printed(alternate ? "%#.*f" : "%.*f", p, d);
  }
}

std::string digits_in(uint64_t n, unsigned base, bool upper) {
  const char* const digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out += digits[n % base];
    n /= base;
  } while (n != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

int64_t read_number(std::string_view text, size_t& at) {
  int64_t n = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    n = n * 10 + (text[at++] - '0');
    if (n > INT32_MAX) throw Failure("Too many decimal digits in format string");
  }
  return n;
}

FormatSpec parse_spec(std::string_view text) {
  FormatSpec s;
  size_t at = 0;
  bool filled = false;
  const size_t first = text.empty() ? 0 : char_bytes(text, 0);
  if (first < text.size() && is_align(text[first])) {
    s.fill = text.substr(0, first);
    filled = true;
    s.align = text[first];
    at = first + 1;
  } else if (!text.empty() && is_align(text[0])) {
    s.align = text[0];
    at = 1;
  }
  const auto take = [&](std::string_view set) {
    return at < text.size() && set.find(text[at]) != set.npos ? text[at++] : '\0';
  };
  if (const char sign = take("+- ")) s.sign = sign;
  s.alternate = take("#") != 0;
  if (!filled && take("0")) {
    s.fill = "0";
    if (s.align == 0) {
      s.zero = true;
      s.align = '=';
    }
  }
  s.width = read_number(text, at);
  s.grouping = take(",_");
  if (take(".")) {
    const size_t before = at;
    s.precision = read_number(text, at);
    if (at == before) throw Failure("Format specifier missing precision");
  }
  if (at < text.size()) s.type = text[at++];
  if (at < text.size()) throw Failure("Invalid format specifier");
  if (s.type == 'n' && s.grouping != 0) {
    throw Failure(std::string("Cannot specify '") + s.grouping + "' with 'n'.");
  }
  return s;
}

std::string padded(const std::string& sign, const std::string& body, const FormatSpec& s,
                   char align) {
  const int64_t missing = s.width - static_cast<int64_t>(count_chars(sign) + count_chars(body));
  if (missing <= 0) return sign + body;
  const auto n = static_cast<uint64_t>(missing);
  check_fits(n * s.fill.size());
  const auto fill = [&s](uint64_t times) {
    std::string out;
    for (uint64_t i = 0; i < times; ++i) out += s.fill;
    return out;
  };
  switch (s.align != 0 ? s.align : align) {
    case '<':
      return sign + body + fill(n);
    case '=':
      return sign + fill(n) + body;
    case '^':
      return fill(n / 2) + sign + body + fill(n - n / 2);
    default:
      return fill(n) + sign + body;
  }
}

std::string sign_text(bool negative, char sign) {
  return negative ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
}

std::string format_float(double d, const FormatSpec& s) {
  std::string digits;
  if (s.type == 0) {
    if (s.precision < 0) {
      digits = float_repr(std::fabs(d));
    } else {
      // As g, but with at least one digit behind the point.
      digits = float_digits(d, 'g', s.precision == 0 ? 1 : s.precision, s.alternate);
      const bool plain = digits.find_first_not_of("0123456789") == digits.npos;
      if (plain && static_cast<int64_t>(digits.size()) >= std::max<int64_t>(s.precision, 1)) {
        digits = float_digits(d, 'e', std::max<int64_t>(s.precision, 1) - 1, s.alternate);
        // 1.2e+05 with the zeros at the mantissa's end removed
        const size_t e = digits.find('e');
        std::string mantissa = digits.substr(0, e);
        if (mantissa.find('.') != mantissa.npos) {
          while (mantissa.back() == '0') mantissa.pop_back();
          if (mantissa.back() == '.') mantissa.pop_back();
        }
        digits = mantissa + digits.substr(e);
      } else if (plain) {
        digits += ".0";
      }
    }
  } else if (std::string_view("eEfFgGn%").find(s.type) != std::string_view::npos) {
    digits = float_digits(d, s.type == 'n' ? 'g' : s.type, s.precision, s.alternate);
  } else {
    throw Failure(std::string("Unknown format code '") + s.type + "' for object of type 'float'");
  }
  const bool negative = std::signbit(d) && !std::isnan(d);
  const std::string sign = sign_text(negative, s.sign);
  const bool zeros = s.fill == "0" && s.align == '=';
  digits = grouped(digits, s.grouping, 3, zeros ? s.width - static_cast<int64_t>(sign.size()) : 0);
  return padded(sign, digits, s, '>');
}

std::string format_integer(const Value& v, const FormatSpec& s) {
  if (s.type != 0 && std::string_view("eEfFgG%").find(s.type) != std::string_view::npos) {
    return format_float(
        v.is(Type::kBigInt) ? std::strtod(v.text().c_str(), nullptr) : v.as_double(), s);
  }
  if (s.precision >= 0) throw Failure("Precision not allowed in integer format specifier");
  const bool big = v.is(Type::kBigInt);
  const bool negative = big ? v.text()[0] == '-' : v.as_int() < 0;
  const uint64_t size = big        ? 0
                        : negative ? ~static_cast<uint64_t>(v.as_int()) + 1
                                   : static_cast<uint64_t>(v.as_int());
  std::string digits, prefix;
  switch (s.type) {
    case 0:
    case 'd':
    case 'n':
      digits = big ? v.text().substr(negative ? 1 : 0) : digits_in(size, 10, false);
      break;
    case 'b':
    case 'o':
    case 'x':
    case 'X': {
      if (big) throw Failure("an integer needs more than 64 bits");
      const unsigned base = s.type == 'b' ? 2 : s.type == 'o' ? 8 : 16;
      digits = digits_in(size, base, s.type == 'X');
      if (s.alternate) prefix = std::string("0") + s.type;
      break;
    }
    case 'c': {
      if (s.alternate || s.sign != '-') {
        throw Failure("Sign and # are not allowed with integer format specifier 'c'");
      }
      if (big || v.as_int() < 0 || v.as_int() > 0x10FFFF) throw Failure("%c arg not in range");
      std::string c;
      append_char(c, static_cast<char32_t>(v.as_int()));
      return padded("", c, s, '<');
    }
    default:
      throw Failure(std::string("Unknown format code '") + s.type + "' for object of type 'int'");
  }
  const std::string sign = sign_text(negative, s.sign) + prefix;
  const bool zeros = s.fill == "0" && s.align == '=';
  const size_t group = s.type == 'b' || s.type == 'o' || s.type == 'x' || s.type == 'X' ? 4 : 3;
  if (s.grouping == ',' && group == 4) {
    throw Failure(std::string("Cannot specify ',' with '") + s.type + "'.");
  }
  digits =
      grouped(digits, s.grouping, group, zeros ? s.width - static_cast<int64_t>(sign.size()) : 0);
  return padded(sign, digits, s, '>');
}

std::string format_text(const std::string& text, const FormatSpec& s) {
  if (s.type != 0 && s.type != 's') {
    throw Failure(std::string("Unknown format code '") + s.type + "' for object of type 'str'");
  }
  if (s.sign != '-') throw Failure("Sign not allowed in string format specifier");
  if (s.alternate) throw Failure("Alternate form (#) not allowed in string format specifier");
  if (s.align == '=' && !s.zero) {
    throw Failure("'=' alignment not allowed in string format specifier");
  }
  if (s.grouping != 0) throw Failure(std::string("Cannot specify '") + s.grouping + "' with 's'.");
  FormatSpec used = s;
  if (s.align == '=') used.align = '<';  // a 0 before the width fills, and aligns as texts do
  std::string_view cut = text;
  if (s.precision >= 0) cut = cut.substr(0, offset_of_char(cut, static_cast<size_t>(s.precision)));
  return padded("", std::string(cut), used, '<');
}

std::string format_number(const Value& v, std::string_view spec) {
  if (spec.empty()) return to_text(v);
  const FormatSpec s = parse_spec(spec);
  switch (v.type()) {
    case Type::kString:
      return format_text(v.text(), s);
    case Type::kBool:
    case Type::kInt:
    case Type::kBigInt:
      return format_integer(v, s);
    case Type::kFloat:
      return format_float(v.as_float(), s);
    default:
      throw Failure(std::string("unsupported format string passed to ") + type_name(v) +
                    ".__format__");
  }
}

}  // namespace llorch::tmpl
