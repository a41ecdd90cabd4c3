// Filters over numbers and over values of any kind, and Python's int(), float() and round().
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {

// With base 0 by prefix, as a literal is written; single underscores between digits.
Value parse_integer(std::string_view text, int64_t base) {
  spend_scan(text.size());
  text = strip_right(strip_left(text));
  const bool minus = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const auto prefix = [&](int64_t which, char letter) {
    if ((base != which && base != 0) || text.size() < 2 || text[0] != '0' ||
        (text[1] | 0x20) != letter) {
      return false;
    }
    text.remove_prefix(2);
    if (!text.empty() && text[0] == '_') text.remove_prefix(1);
    base = which;
    return true;
  };
  const bool prefixed = prefix(16, 'x') || prefix(8, 'o') || prefix(2, 'b');
  if (!prefixed && base == 0) {
    base = 10;
    // 0 and 00 are numbers, 01 is not.
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != text.npos) return {};
  }
  std::string digits;
  uint64_t value = 0;
  bool big = false, last_underscore = true;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    if (c == '_') {
      if (last_underscore) return {};
      last_underscore = true;
      continue;
    }
    last_underscore = false;
    const char32_t low = c | 0x20;
    const int64_t digit = is_decimal(c) ? decimal_value(c)
                          : low >= 'a' && low <= 'z' && c < 0x80
                              ? static_cast<int64_t>(low - 'a' + 10)
                              : 99;
    if (digit >= base) return {};
    if (digits.size() < 5000) digits += static_cast<char>('0' + digit);
    big |= __builtin_mul_overflow(value, static_cast<uint64_t>(base), &value) ||
           __builtin_add_overflow(value, static_cast<uint64_t>(digit), &value);
  }
  if (digits.empty() || last_underscore) return {};
  const uint64_t most = static_cast<uint64_t>(INT64_MAX) + (minus ? 1 : 0);
  if (!big && value <= most) {
    return Value::integer(minus ? static_cast<int64_t>(~value + 1) : static_cast<int64_t>(value));
  }
  if (base != 10 || digits.size() > 4300) {
    if (base == 10) return {};
    throw Failure("an integer needs more than 64 bits");
  }
  digits.erase(0, digits.find_first_not_of('0'));
  return Value::big_integer((minus ? "-" : "") + digits);
}

std::optional<double> parse_float(std::string_view text) {
  spend_scan(text.size());
  text = strip_right(strip_left(text));
  std::string plain;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    if (c == '_') {
      const bool between = at > 0 && at + 1 < text.size() && text[at - 1] >= '0' &&
                           text[at - 1] <= '9' && text[at + 1] >= '0' && text[at + 1] <= '9';
      if (!between) return {};
    } else if (c >= 0x80) {
      if (!is_decimal(c)) return {};
      plain += static_cast<char>('0' + decimal_value(c));
    } else {
      plain += static_cast<char>(c);
    }
  }
  std::string_view unsigned_part = plain;
  const bool minus = !plain.empty() && plain[0] == '-';
  if (!plain.empty() && (plain[0] == '-' || plain[0] == '+')) unsigned_part.remove_prefix(1);
  const std::string name = lower(unsigned_part);
  if (name == "inf" || name == "infinity") return minus ? -HUGE_VAL : HUGE_VAL;
  if (name == "nan") return std::nan("");
  // strtod also reads hexadecimal and "nan(...)".
  if (unsigned_part.empty() ||
      unsigned_part.find_first_not_of("0123456789.eE+-") != std::string_view::npos ||
      unsigned_part.find_first_of("0123456789") == std::string_view::npos ||
      unsigned_part[0] == '+' || unsigned_part[0] == '-') {
    return {};
  }
  char* end = nullptr;
  const double d = std::strtod(plain.c_str(), &end);
  if (end != plain.c_str() + plain.size()) return {};
  return d;
}

namespace {

[[noreturn]] void must_be_number(const Value& v, const char* what) {
  if (v.is_undefined()) throw Failure(v.text());
  throw Failure(std::string(what) + " must be a number, not '" + type_name(v) + "'");
}

Value abs(Env&, const Value& v, const Args& args) {
  const Params p("abs", args, {});
  if (v.is(Type::kFloat)) return Value::number(std::fabs(v.as_float()));
  if (v.is(Type::kBigInt)) return v.text()[0] == '-' ? negative(v) : v;
  if (!v.is_integer()) {
    // abs() of an undefined is a TypeError like that of anything else.
    throw Failure(std::string("bad operand type for abs(): '") + type_name(v) + "'");
  }
  return v.as_int() < 0 ? negative(v) : Value::integer(v.as_int());
}

// int(float), missing where it raises.
Value truncated(double d) {
  if (!std::isfinite(d)) return {};
  d = std::trunc(d);
  if (std::fabs(d) < 9.2e18) return Value::integer(static_cast<int64_t>(d));
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, "%.0f", d);
  return Value::big_integer(buffer);
}

Value int_filter(Env&, const Value& v, const Args& args) {
  const Params p("int", args, {"default", "base"});
  const Value otherwise = p.has(0) ? p[0] : Value::integer(0);
  if (v.is_undefined()) throw Failure(v.text());
  if (v.is_integer()) return Value::integer(v.as_int());
  if (v.is(Type::kBigInt)) return v;
  if (v.is(Type::kFloat)) {
    // int(inf) is an OverflowError, which the filter lets through the first time.
    if (std::isinf(v.as_float())) throw Failure("cannot convert float infinity to integer");
    const Value whole = truncated(v.as_float());
    return whole.is_missing() ? otherwise : whole;
  }
  if (!v.is_string()) return otherwise;
  const int64_t base = p.integer(1, 10);
  if (base == 0 || (base >= 2 && base <= 36)) {
    const Value whole = parse_integer(v.text(), base);
    if (!whole.is_missing()) return whole;
  }
  const auto d = parse_float(v.text());
  const Value whole = d ? truncated(*d) : Value();
  return whole.is_missing() ? otherwise : whole;
}

Value float_filter(Env&, const Value& v, const Args& args) {
  const Params p("float", args, {"default"});
  const Value otherwise = p.has(0) ? p[0] : Value::number(0);
  if (v.is_undefined()) throw Failure(v.text());
  if (v.is_number()) return Value::number(v.as_double());
  if (v.is(Type::kBigInt)) {
    const double d = std::strtod(v.text().c_str(), nullptr);
    if (std::isinf(d)) throw Failure("int too large to convert to float");
    return Value::number(d);
  }
  if (!v.is_string()) return otherwise;
  const auto d = parse_float(v.text());
  return d ? Value::number(*d) : otherwise;
}

// Half to even on the exact value of the double.
double rounded(double d, int64_t digits) {
  if (!std::isfinite(d) || d == 0) return d;
  if (digits > 323) return d;
  if (digits < -308) return std::copysign(0.0, d);
  if (digits >= 0) {
    char buffer[700];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), d);
    return std::strtod(buffer, nullptr);
  }
  // Before the point: the digits of the whole, cut by hand.
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, "%.0f", std::trunc(std::fabs(d)));
  std::string whole = buffer;
  const auto cut = static_cast<size_t>(-digits);
  if (whole.size() < cut) return std::copysign(0.0, d);
  whole.insert(0, "0");
  const size_t keep = whole.size() - cut;
  const std::string tail = whole.substr(keep);
  whole = whole.substr(0, keep);
  const bool fraction = std::fabs(d) != std::trunc(std::fabs(d));
  const bool beyond_half = tail.find_first_not_of('0', 1) != tail.npos || fraction;
  const bool up =
      tail[0] > '5' || (tail[0] == '5' && (beyond_half || (whole.back() - '0') % 2 == 1));
  if (up) {
    size_t at = whole.size();
    while (at > 0 && whole[--at] == '9') whole[at] = '0';
    ++whole[at];
  }
  whole += std::string(cut, '0');
  return std::copysign(std::strtod(whole.c_str(), nullptr), d);
}

Value round_integer(int64_t i, int64_t digits) {
  if (digits >= 0) return Value::integer(i);
  if (digits < -18) return Value::integer(0);
  int64_t unit = 1;
  for (int64_t k = digits; k < 0; ++k) unit *= 10;
  const int64_t rest = ((i % unit) + unit) % unit, down = i - rest;
  const bool up = rest > unit / 2 || (rest == unit / 2 && (down / unit) % 2 != 0);
  return up ? binary(Op::kAdd, Value::integer(down), Value::integer(unit)) : Value::integer(down);
}

Value round_filter(Env&, const Value& v, const Args& args) {
  const Params p("round", args, {"precision", "method"});
  const std::string method = p.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    throw Failure("method must be common, ceil or floor");
  }
  if (method == "common") {
    if (v.is(Type::kBigInt)) {
      if (p.given(0) && p.integer(0, 0) < 0) throw Failure("an integer needs more than 64 bits");
      return v;
    }
    if (!v.is_number()) {
      throw Failure(std::string("type ") + type_name(v) + " doesn't define __round__ method");
    }
    if (p.has(0) && p[0].is(Type::kNone)) {
      if (v.is_integer()) return Value::integer(v.as_int());
      const Value whole = truncated(std::nearbyint(v.as_float()));
      if (whole.is_missing()) throw Failure("cannot convert float to integer");
      return whole;
    }
    const int64_t digits = p.integer(0, 0);
    if (v.is_integer()) return round_integer(v.as_int(), digits);
    return Value::number(rounded(v.as_float(), digits));
  }
  const Value precision = p.has(0) ? p[0] : Value::integer(0);
  const Value unit = binary(Op::kPow, Value::integer(10), precision);
  const Value scaled = binary(Op::kMul, v, unit);
  if (!scaled.is_number()) must_be_number(scaled, "the value");
  const double d = scaled.as_double();
  if (!std::isfinite(d)) throw Failure("cannot convert float to integer");
  const Value whole = scaled.is_integer()
                          ? Value::integer(scaled.as_int())
                          : truncated(method == "ceil" ? std::ceil(d) : std::floor(d));
  return binary(Op::kDiv, whole, unit);
}

Value filesizeformat(Env&, const Value& v, const Args& args) {
  const Params p("filesizeformat", args, {"binary"});
  double bytes = 0;
  if (v.is_number()) {
    bytes = v.as_double();
  } else if (v.is_string()) {
    const auto d = parse_float(v.text());
    if (!d) throw Failure("could not convert string to float: " + repr(v));
    bytes = *d;
  } else {
    must_be_number(v, "float() argument");
  }
  const bool binary = p.boolean(0, false);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::string("1 Byte");
  if (bytes < base) {
    const Value whole = truncated(bytes);
    if (whole.is_missing()) throw Failure("cannot convert float to integer");
    return Value::string(to_text(whole) + " Bytes");
  }
  static constexpr const char* kDecimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
  static constexpr const char* kBinary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
  double unit = base;
  int i = 0;
  for (; i < 8; ++i) {
    unit *= base;
    if (bytes < unit || i == 7) break;
  }
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, "%.1f %s", base * bytes / unit,
                binary ? kBinary[i] : kDecimal[i]);
  return Value::string(buffer);
}

Value default_filter(Env&, const Value& v, const Args& args) {
  const Params p("default", args, {"default_value", "boolean"});
  if (v.is_undefined() || (p.boolean(1, false) && !truthy(v))) {
    return p.has(0) ? p[0] : Value::string("");
  }
  return v;
}

Value attr(Env&, const Value& v, const Args& args) {
  const Params p("attr", args, {"name"}, 1);
  const std::string& name = p.string(0);
  if (v.is_undefined()) throw Failure(v.text());
  if (!own_attribute(v, name).is_missing() || is_mutator(v, name)) return get_attribute(v, name);
  return undefined_attribute(v, name);
}

// What the page does not need and a reply must not depend on.
template <const char* const& Name>
Value refused(Env&, const Value&, const Args&) {
  throw Failure(std::string("the filter '") + Name + "' is not supported");
}

const char* const kRandom = "random";
const char* const kPprint = "pprint";
const char* const kStriptags = "striptags";
const char* const kUrlize = "urlize";
const char* const kWordwrap = "wordwrap";

struct Entry {
  std::string_view name;
  Filter filter;
};

constexpr Entry kFilters[] = {
    {"abs", abs},
    {"attr", attr},
    {"d", default_filter},
    {"default", default_filter},
    {"filesizeformat", filesizeformat},
    {"float", float_filter},
    {"int", int_filter},
    {"pprint", refused<kPprint>},
    {"random", refused<kRandom>},
    {"round", round_filter},
    {"striptags", refused<kStriptags>},
    {"urlize", refused<kUrlize>},
    {"wordwrap", refused<kWordwrap>},
};

}  // namespace

Filter find_number_filter(std::string_view name) {
  for (const Entry& e : kFilters) {
    if (e.name == name) return e.filter;
  }
  return nullptr;
}

Filter find_filter(std::string_view name) {
  if (const Filter f = find_text_filter(name)) return f;
  if (const Filter f = find_sequence_filter(name)) return f;
  return find_number_filter(name);
}

}  // namespace llorch::tmpl
