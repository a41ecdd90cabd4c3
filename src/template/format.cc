// Python's three ways to format: format(), str.format and %.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

constexpr int64_t kMostPrecision = 1000;

// [[fill]align][sign][z][#][0][width][grouping][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = 0, sign = '-', grouping = 0, type = 0;
  bool alternate = false, zero = false;
  int64_t width = 0, precision = -1;
};

int64_t read_number(std::string_view text, size_t& at) {
  int64_t n = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    n = n * 10 + (text[at++] - '0');
    if (n > INT32_MAX) throw Failure("Too many decimal digits in format string");
  }
  return n;
}

bool is_align(char c) { return c == '<' || c == '>' || c == '=' || c == '^'; }

Spec parse_spec(std::string_view text) {
  Spec s;
  size_t at = 0;
  const size_t first = text.empty() ? 0 : char_bytes(text, 0);
  if (first < text.size() && is_align(text[first])) {
    s.fill = text.substr(0, first);
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
  if (take("0")) {
    s.zero = true;
    if (s.align == 0) {
      s.align = '=';
      s.fill = "0";
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
  return s;
}

std::string padded(const std::string& sign, const std::string& body, const Spec& s, char align) {
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

// Digits in groups, with zeros before them up to `width` if that is asked.
std::string grouped(std::string digits, char separator, size_t group, int64_t width) {
  if (separator == 0) return digits;
  const size_t end = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
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

std::string sign_text(bool negative, char sign) {
  return negative ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
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

std::string format_float(double d, const Spec& s) {
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

std::string digits_in(uint64_t n, unsigned base, bool upper) {
  std::string out;
  do {
    out += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[n % base];
    n /= base;
  } while (n != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string format_integer(const Value& v, const Spec& s) {
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

std::string format_text(const std::string& text, const Spec& s) {
  if (s.type != 0 && s.type != 's') {
    throw Failure(std::string("Unknown format code '") + s.type + "' for object of type 'str'");
  }
  if (s.sign != '-') throw Failure("Sign not allowed in string format specifier");
  if (s.alternate) throw Failure("Alternate form (#) not allowed in string format specifier");
  if (s.align == '=' && !s.zero) {
    throw Failure("'=' alignment not allowed in string format specifier");
  }
  if (s.grouping != 0) throw Failure(std::string("Cannot specify '") + s.grouping + "' with 's'.");
  Spec used = s;
  if (s.align == '=') used.align = '<';  // a 0 before the width fills, and aligns as texts do
  std::string_view cut = text;
  if (s.precision >= 0) cut = cut.substr(0, offset_of_char(cut, static_cast<size_t>(s.precision)));
  return padded("", std::string(cut), used, '<');
}

// One replacement field of str.format.
class BraceFormatter {
 public:
  BraceFormatter(const Args& args, bool markup) : args_(args), markup_(markup) {}

  std::string run(std::string_view text, int depth = 2) {
    if (depth < 0) throw Failure("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (c != '{' && c != '}') {
        const size_t end = std::min(text.find_first_of("{}", at), text.size());
        out += text.substr(at, end - at);
        at = end;
        continue;
      }
      if (at + 1 < text.size() && text[at + 1] == c) {
        out += c;
        at += 2;
        continue;
      }
      if (c == '}') throw Failure("Single '}' encountered in format string");
      const size_t end = field_end(text, at);
      const std::string piece = field(text.substr(at + 1, end - at - 1), depth);
      check_fits(out.size() + piece.size());
      out += piece;
      at = end + 1;
    }
    return out;
  }

 private:
  static size_t field_end(std::string_view text, size_t at) {
    if (at + 1 == text.size()) throw Failure("Single '{' encountered in format string");
    int open = 0;
    bool bracket = false;
    for (size_t i = at; i < text.size(); ++i) {
      if (text[i] == '[') bracket = true;
      if (text[i] == ']') bracket = false;
      if (bracket) continue;
      if (text[i] == '{') ++open;
      if (text[i] == '}' && --open == 0) return i;
    }
    throw Failure("expected '}' before end of string");
  }

  std::string field(std::string_view body, int depth) {
    size_t name_end = 0;
    bool bracket = false;
    for (; name_end < body.size(); ++name_end) {
      if (body[name_end] == '[') bracket = true;
      if (body[name_end] == ']') bracket = false;
      if (!bracket && (body[name_end] == ':' || body[name_end] == '!')) break;
    }
    Value v = look_up(body.substr(0, name_end));
    std::string_view rest = body.substr(name_end);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':')) {
        throw Failure("expected ':' after conversion specifier");
      }
      v = converted(v, rest[1]);
      rest.remove_prefix(2);
    }
    if (!rest.empty()) rest.remove_prefix(1);
    const std::string spec = run(rest, depth - 1);
    if (markup_ && !(v.is_string() && v.as_string().markup)) {
      return html_escaped(format_number(v, spec));
    }
    return format_number(v, spec);
  }

  static Value converted(const Value& v, char how) {
    if (how == 's') return Value::string(to_text(v));
    if (how == 'r') return Value::string(repr(v));
    if (how != 'a') throw Failure(std::string("Unknown conversion specifier ") + how);
    std::string out;
    const std::string text = repr(v);
    for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
      const char32_t c = char_at(text, at);
      char buffer[16];
      std::snprintf(buffer, sizeof buffer,
                    c < 0x80      ? "%c"
                    : c < 0x100   ? "\\x%02x"
                    : c < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                    static_cast<unsigned>(c));
      out += buffer;
    }
    return Value::string(out);
  }

  Value look_up(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value v = first(name.substr(0, end));
    name.remove_prefix(end);
    while (!name.empty()) {
      if (name[0] == '.') {
        const size_t stop = std::min(name.find_first_of(".[", 1), name.size());
        if (stop == 1) throw Failure("Empty attribute in format string");
        v = get_attribute(v, name.substr(1, stop - 1));
        name.remove_prefix(stop);
      } else if (name[0] == '[') {
        const size_t stop = name.find(']');
        if (stop == name.npos) throw Failure("Missing ']' in format string");
        if (stop == 1) throw Failure("Empty attribute in format string");
        const auto key = name.substr(1, stop - 1);
        const bool number = key.find_first_not_of("0123456789") == key.npos;
        v = get_item(v, number ? parse_integer(key, 10) : Value::string(std::string(key)));
        name.remove_prefix(stop + 1);
        if (!name.empty() && name[0] != '.' && name[0] != '[') {
          throw Failure("Only '.' or '[' may follow ']' in format field specifier");
        }
      }
    }
    return v;
  }

  Value first(std::string_view name) {
    const bool number = name.find_first_not_of("0123456789") == name.npos;
    if (!number) {
      const Value* v = args_.find(name);
      if (v == nullptr) throw Failure(quoted(name));
      return *v;
    }
    int64_t index = 0;
    if (name.empty()) {
      if (numbering_ == 'm') {
        throw Failure("cannot switch from manual field specification to automatic field numbering");
      }
      numbering_ = 'a';
      index = next_++;
    } else {
      if (numbering_ == 'a') {
        throw Failure("cannot switch from automatic field numbering to manual field specification");
      }
      numbering_ = 'm';
      index = name.size() > 9 ? INT64_MAX : std::stoll(std::string(name));
    }
    if (index >= static_cast<int64_t>(args_.positional.size())) {
      throw Failure("Replacement index " + std::to_string(index) +
                    " out of range for positional args tuple");
    }
    return args_.positional[static_cast<size_t>(index)];
  }

  const Args& args_;
  const bool markup_;
  char numbering_ = 0;
  int64_t next_ = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(std::string_view text, const Value& arguments, bool markup)
      : text_(text), arguments_(arguments), markup_(markup) {}

  std::string run() {
    std::string out;
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out += text_.substr(at_, percent - at_);
      at_ = percent;
      if (at_ == text_.size()) break;
      ++at_;
      const std::string piece = conversion();
      check_fits(out.size() + piece.size());
      out += piece;
    }
    const bool mapping = arguments_.is(Type::kDict) || arguments_.is(Type::kList) ||
                         arguments_.is(Type::kRange) || arguments_.is(Type::kUndefined);
    if (arguments_.is(Type::kTuple) ? used_ < arguments_.items().size() : used_ == 0 && !mapping) {
      throw Failure("not all arguments converted during string formatting");
    }
    return out;
  }

 private:
  char peek() const {
    if (at_ >= text_.size()) throw Failure("incomplete format");
    return text_[at_];
  }

  Value next_argument() {
    if (arguments_.is(Type::kTuple)) {
      if (used_ >= arguments_.items().size()) {
        throw Failure("not enough arguments for format string");
      }
      return arguments_.items()[used_++];
    }
    if (used_++ > 0) throw Failure("not enough arguments for format string");
    return arguments_;
  }

  Value keyed() {
    size_t depth = 1, end = at_ + 1;
    for (; end < text_.size() && depth > 0; ++end) {
      if (text_[end] == '(') ++depth;
      if (text_[end] == ')') --depth;
    }
    if (depth > 0) throw Failure("incomplete format key");
    const auto key = text_.substr(at_ + 1, end - at_ - 2);
    at_ = end;
    if (!arguments_.is(Type::kDict)) throw Failure("format requires a mapping");
    const Value* found = arguments_.as_dict().find(key);
    if (found == nullptr) throw Failure(quoted(key));
    used_ = 1;
    return *found;
  }

  int64_t star_or_number() {
    if (peek() != '*') return read_number(text_, at_);
    ++at_;
    const Value v = next_argument();
    if (!v.is_integer()) throw Failure("* wants int");
    if (v.as_int() > INT32_MAX || v.as_int() < -INT32_MAX) throw Failure("width too big");
    return v.as_int();
  }

  std::string conversion() {
    std::optional<Value> v;
    if (peek() == '(') v = keyed();
    Spec s;
    s.sign = '-';
    s.align = '>';
    bool left = false, zero = false;
    for (; std::string_view("-+ #0").find(peek()) != std::string_view::npos; ++at_) {
      left |= text_[at_] == '-';
      zero |= text_[at_] == '0';
      s.alternate |= text_[at_] == '#';
      if (text_[at_] == '+') s.sign = '+';
      if (text_[at_] == ' ' && s.sign != '+') s.sign = ' ';
    }
    s.width = star_or_number();
    if (s.width < 0) {
      left = true;
      s.width = -s.width;
    }
    if (peek() == '.') {
      ++at_;
      s.precision = std::max<int64_t>(star_or_number(), 0);
    }
    while (std::string_view("hlL").find(peek()) != std::string_view::npos) ++at_;
    const char type = text_[at_++];
    if (type == '%') return "%";
    if (!v) v = next_argument();
    if (left) {
      s.align = '<';
    } else if (zero && type != 's' && type != 'r' && type != 'a' && type != 'c') {
      s.align = '=';
      s.fill = "0";
    }
    return convert(*v, type, s);
  }

  std::string convert(const Value& v, char type, Spec& s) const {
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text = type == 's' ? to_text(v) : repr(v);
        if (markup_ && !(v.is_string() && v.as_string().markup)) text = html_escaped(text);
        s.sign = '-';
        s.alternate = false;
        return format_text(text, s);
      }
      case 'd':
      case 'i':
      case 'u':
        return integer(truncated(v, type), 'd', s);
      case 'x':
      case 'X':
      case 'o':
        if (!v.is_integer() && !v.is(Type::kBigInt)) {
          throw Failure(std::string("%") + type + " format: an integer is required, not " +
                        type_name(v));
        }
        return integer(v, type, s);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        if (v.is_undefined()) throw Failure(v.text());
        if (!v.is_number() && !v.is(Type::kBigInt)) {
          throw Failure(std::string("must be real number, not ") + type_name(v));
        }
        s.type = type;
        return format_float(
            v.is(Type::kBigInt) ? std::strtod(v.text().c_str(), nullptr) : v.as_double(), s);
      }
      case 'c': {
        if (v.is_string() && v.as_string().chars == 1) return format_text(v.text(), s);
        if (!v.is_integer()) throw Failure("%c requires int or char");
        s.type = 'c';
        return format_integer(v, s);
      }
      default:
        throw Failure(std::string("unsupported format character '") + type + "'");
    }
  }

  static Value truncated(const Value& v, char type) {
    if (v.is_undefined()) throw Failure(v.text());
    if (v.is(Type::kFloat)) {
      const double d = std::trunc(v.as_float());
      if (!(std::fabs(d) < 9.2e18)) throw Failure("cannot convert float to integer");
      return Value::integer(static_cast<int64_t>(d));
    }
    if (!v.is_integer() && !v.is(Type::kBigInt)) {
      throw Failure(std::string("%") + type + " format: a real number is required, not " +
                    type_name(v));
    }
    return v;
  }

  static std::string integer(const Value& v, char type, Spec s) {
    // A precision is a least number of digits.
    const int64_t digits = s.precision;
    s.precision = -1;
    s.type = type;
    if (digits < 0) return format_integer(v, s);
    Spec inner = s;
    inner.width = 0;
    inner.sign = '-';
    std::string text = format_integer(v, inner);
    const bool negative = text[0] == '-';
    if (negative) text.erase(0, 1);
    if (static_cast<int64_t>(text.size()) < digits) {
      check_fits(static_cast<uint64_t>(digits));
      text.insert(0, static_cast<size_t>(digits) - text.size(), '0');
    }
    return padded(sign_text(negative, s.sign), text, s, '>');
  }

  const std::string_view text_;
  const Value& arguments_;
  const bool markup_;
  size_t at_ = 0, used_ = 0;
};

}  // namespace

std::string format_number(const Value& v, std::string_view spec) {
  if (spec.empty()) return to_text(v);
  const Spec s = parse_spec(spec);
  switch (v.type()) {
    case Type::kString:
      return format_text(v.text(), s);
    case Type::kBool:
      // bool is an int, but without a type it prints as itself.
      if (s.type == 0) return padded("", std::to_string(v.as_int()), s, '>');
      return format_integer(v, s);
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

std::string brace_format(const std::string& format, const Args& args, bool markup) {
  return BraceFormatter(args, markup).run(format);
}

std::string percent_format(const std::string& format, const Value& arguments, bool markup) {
  return PercentFormatter(format, arguments, markup).run();
}

}  // namespace llorch::tmpl
