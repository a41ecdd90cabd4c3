// str.format and %.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "template/budget.h"
#include "template/format_spec.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

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
      if (v == nullptr) throw Failure(repr(name));
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
    if (found == nullptr) throw Failure(repr(key));
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
    if (peek() == '%') {
      ++at_;
      return "%";
    }
    std::optional<Value> v;
    if (peek() == '(') v = keyed();
    FormatSpec s;
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
    if (!v) v = next_argument();
    if (left) {
      s.align = '<';
    } else if (zero && type != 's' && type != 'r' && type != 'a' && type != 'c') {
      s.align = '=';
      s.fill = "0";
    }
    return convert(*v, type, s);
  }

  std::string convert(const Value& v, char type, FormatSpec& s) const {
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
        s.sign = '-';
        s.alternate = false;
        if (v.is_string() && v.as_string().chars == 1) return format_text(v.text(), s);
        if (!v.is_integer()) throw Failure("%c requires int or char");
        s.type = 'c';
        s.precision = -1;
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

  // A precision is a least number of digits, behind sign and prefix.
  static std::string integer(const Value& v, char type, const FormatSpec& s) {
    FormatSpec plain;
    plain.type = type;
    std::string digits = format_integer(v, plain);
    const bool negative = digits[0] == '-';
    if (negative) digits.erase(0, 1);
    if (static_cast<int64_t>(digits.size()) < s.precision) {
      check_fits(static_cast<uint64_t>(s.precision));
      digits.insert(0, static_cast<size_t>(s.precision) - digits.size(), '0');
    }
    std::string sign = sign_text(negative, s.sign);
    if (s.alternate && type != 'd') sign += std::string("0") + type;
    return padded(sign, digits, s, '>');
  }

  const std::string_view text_;
  const Value& arguments_;
  const bool markup_;
  size_t at_ = 0, used_ = 0;
};

}  // namespace

std::string brace_format(const std::string& format, const Args& args, bool markup) {
  return BraceFormatter(args, markup).run(format);
}

std::string percent_format(const std::string& format, const Value& arguments, bool markup) {
  return PercentFormatter(format, arguments, markup).run();
}

}  // namespace llorch::tmpl
