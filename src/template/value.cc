#include "template/value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

int depth_within(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& v : items) {
    if (v.object()) depth = std::max(depth, v.object()->depth);
  }
  return depth;
}

int checked_depth(int depth) {
  if (depth > kMostDepth) throw Failure("values are nested too deeply");
  return depth;
}

constexpr size_t kIndexFrom = 9;  // entries from which a dict is searched by its index

// None, numbers, strings, tuples, and what is equal only to itself.
int key_rank(const Value& v) {
  switch (v.type()) {
    case Type::kNone:
      return 0;
    case Type::kBool:
    case Type::kInt:
    case Type::kBigInt:
    case Type::kFloat:
      return 1;
    case Type::kString:
      return 2;
    case Type::kTuple:
      return 3;
    case Type::kUndefined:
      return 4;
    default:
      return 5;
  }
}

int compare_int_double(int64_t i, double d) {
  if (std::isnan(d)) return -1;
  if (d >= 9223372036854775808.0) return -1;
  if (d < -9223372036854775808.0) return 1;
  const double whole = std::floor(d);
  const auto w = static_cast<int64_t>(whole);
  if (i != w) return i < w ? -1 : 1;
  return d > whole ? -1 : 0;
}

int compare_big(const std::string& a, const std::string& b) {
  const bool a_minus = a[0] == '-', b_minus = b[0] == '-';
  if (a_minus != b_minus) return a_minus ? -1 : 1;
  int order = a.size() != b.size() ? (a.size() < b.size() ? -1 : 1) : a.compare(b);
  if (a_minus) order = -order;
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

// Of two numbers, NaN below everything.
int compare_numbers(const Value& a, const Value& b) {
  if (a.is(Type::kBigInt) || b.is(Type::kBigInt)) {
    if (a.is(Type::kBigInt) && b.is(Type::kBigInt)) return compare_big(a.text(), b.text());
    const bool a_is_big = a.is(Type::kBigInt);
    const Value &big = a_is_big ? a : b, &other = a_is_big ? b : a;
    int order = 0;
    if (other.is(Type::kFloat)) {
      const double d = std::strtod(big.text().c_str(), nullptr);
      order = d < other.as_float() ? -1 : d > other.as_float() ? 1 : 0;
    } else {
      order = big.text()[0] == '-' ? -1 : 1;
    }
    return a_is_big ? order : -order;
  }
  if (a.is(Type::kFloat) && b.is(Type::kFloat)) {
    const double x = a.as_float(), y = b.as_float();
    if (std::isnan(x) || std::isnan(y)) return std::isnan(x) ? (std::isnan(y) ? 0 : -1) : 1;
    return x < y ? -1 : x > y ? 1 : 0;
  }
  if (a.is(Type::kFloat)) return -compare_int_double(b.as_int(), a.as_float());
  if (b.is(Type::kFloat)) return compare_int_double(a.as_int(), b.as_float());
  return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int() ? 1 : 0;
}

bool is_numeric(const Value& v) { return v.is_number() || v.is(Type::kBigInt); }
bool is_nan(const Value& v) { return v.is(Type::kFloat) && std::isnan(v.as_float()); }

int compare_keys(const Value& a, const Value& b) {
  const int ra = key_rank(a), rb = key_rank(b);
  if (ra != rb) return ra < rb ? -1 : 1;
  switch (ra) {
    case 1:
      return compare_numbers(a, b);
    case 2: {
      const int order = a.text().compare(b.text());
      return order < 0 ? -1 : order > 0 ? 1 : 0;
    }
    case 3: {
      spend_steps(1);
      const auto &x = a.items(), &y = b.items();
      for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
        if (const int order = compare_keys(x[i], y[i])) return order;
      }
      return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
    }
    case 5:
      return a.object() < b.object() ? -1 : b.object() < a.object() ? 1 : 0;
    default:
      return 0;
  }
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key);
    if (other == nullptr || !equal(value, *other)) return false;
  }
  return true;
}

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal);
}

bool equal_ranges(const Range& a, const Range& b) {
  if (a.length != b.length) return false;
  return a.length == 0 || (a.start == b.start && (a.length == 1 || a.step == b.step));
}

[[noreturn]] void not_ordered(const Value& a, const Value& b, bool or_equal) {
  throw Failure(std::string("'") + (or_equal ? "<=" : "<") +
                "' not supported between instances of '" + type_name(a) + "' and '" + type_name(b) +
                "'");
}

void append_repr(std::string& out, const Value& v);

void append_items(std::string& out, const std::vector<Value>& items, const char* ends) {
  out += ends[0];
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(out, items[i]);
  }
  if (ends[0] == '(' && items.size() == 1) out += ',';
  out += ends[1];
}

void append_dict(std::string& out, const Dict& d) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : d.entries) {
    if (!first) out += ", ";
    first = false;
    append_repr(out, key);
    out += ": ";
    append_repr(out, value);
  }
  out += '}';
}

void append_view(std::string& out, const View& view) {
  out += view.kind == View::Kind::kKeys     ? "dict_keys(["
         : view.kind == View::Kind::kValues ? "dict_values(["
                                            : "dict_items([";
  const size_t n = view.dict.as_dict().entries.size();
  for (size_t i = 0; i < n; ++i) {
    if (i > 0) out += ", ";
    append_repr(out, view.at(i));
  }
  out += "])";
}

// Namespaces can hold themselves, and each other in a chain of any length.
thread_local int namespaces_open = 0;

void append_namespace(std::string& out, const Namespace& ns) {
  if (namespaces_open >= 20) throw Failure("maximum recursion depth exceeded");
  struct Open {
    Open() { ++namespaces_open; }
    ~Open() { --namespaces_open; }
  } open;
  out += "<Namespace ";
  append_dict(out, ns.attributes);
  out += '>';
}

void append_repr(std::string& out, const Value& v) {
  check_fits(out.size());
  switch (v.type()) {
    case Type::kString:
      if (v.as_string().markup) {
        out += "Markup(" + repr(v.text()) + ")";
      } else {
        out += repr(v.text());
      }
      return;
    case Type::kUndefined:
      out += "Undefined";
      return;
    case Type::kList:
      return append_items(out, v.items(), "[]");
    case Type::kTuple:
      return append_items(out, v.items(), "()");
    case Type::kDict:
      return append_dict(out, v.as_dict());
    case Type::kView:
      return append_view(out, v.as<View>());
    case Type::kNamespace:
      return append_namespace(out, v.as<Namespace>());
    default:
      out += to_text(v);
  }
}

std::string range_text(const Range& r) {
  std::string out = "range(" + std::to_string(r.start) + ", " + std::to_string(r.stop);
  if (r.step != 1) out += ", " + std::to_string(r.step);
  return out + ")";
}

}  // namespace

Value Value::undefined(std::string hint) {
  Value v(Type::kUndefined);
  v.object_ = std::make_shared<String>(std::move(hint), false);
  return v;
}

Value Value::boolean(bool b) {
  Value v(Type::kBool);
  v.int_ = b ? 1 : 0;
  return v;
}

Value Value::integer(int64_t i) {
  Value v(Type::kInt);
  v.int_ = i;
  return v;
}

Value Value::number(double d) {
  Value v(Type::kFloat);
  v.float_ = d;
  return v;
}

Value Value::string(std::string text, bool markup) {
  // Texts of one character are what loops over strings and slices make most.
  static const std::array<std::shared_ptr<String>, 128> single = [] {
    std::array<std::shared_ptr<String>, 128> made;
    for (size_t i = 0; i < made.size(); ++i) {
      made[i] = std::make_shared<String>(std::string(1, static_cast<char>(i)), false);
    }
    return made;
  }();
  spend_bytes(text.size());
  Value v(Type::kString);
  if (text.size() == 1 && !markup && static_cast<unsigned char>(text[0]) < 128) {
    v.object_ = single[static_cast<unsigned char>(text[0])];
  } else {
    v.object_ = std::make_shared<String>(std::move(text), markup);
  }
  return v;
}

Value Value::big_integer(std::string digits) {
  Value v(Type::kBigInt);
  v.object_ = std::make_shared<String>(std::move(digits), false);
  return v;
}

Value Value::list(std::vector<Value> items) {
  return object(Type::kList, std::make_shared<Sequence>(std::move(items)));
}

Value Value::tuple(std::vector<Value> items) {
  return object(Type::kTuple, std::make_shared<Sequence>(std::move(items)));
}

Value Value::dict(std::shared_ptr<Dict> d) { return object(Type::kDict, std::move(d)); }

Value Value::object(Type type, std::shared_ptr<Object> o) {
  Value v(type);
  v.object_ = std::move(o);
  return v;
}

const String& Value::as_string() const { return as<String>(); }
const std::string& Value::text() const { return as<String>().text; }
const std::vector<Value>& Value::items() const { return as<Sequence>().items; }
const Dict& Value::as_dict() const { return as<Dict>(); }

String::String(std::string t, bool m) : text(std::move(t)), chars(count_chars(text)), markup(m) {}

Sequence::Sequence(std::vector<Value> v) : items(std::move(v)) {
  depth = checked_depth(depth_within(items) + 1);
}

bool KeyLess::operator()(const Value& a, const Value& b) const { return compare_keys(a, b) < 0; }

void Dict::set(const Value& key, Value value) {
  check_hashable(key);
  if (value.object()) depth = std::max(depth, checked_depth(value.object()->depth + 1));
  if (key.object()) depth = std::max(depth, checked_depth(key.object()->depth + 1));
  depth = std::max(depth, 1);
  if (const Value* there = find(key)) {
    const_cast<Value&>(*there) = std::move(value);
    return;
  }
  entries.emplace_back(key, std::move(value));
  if (entries.size() == kIndexFrom) {
    for (size_t i = 0; i < entries.size(); ++i) index_.emplace(entries[i].first, i);
  } else if (entries.size() > kIndexFrom) {
    index_.emplace(key, entries.size() - 1);
  }
}

void Dict::clear() {
  index_.clear();
  entries.clear();
}

const Value* Dict::find(const Value& key) const {
  if (!index_.empty()) {
    const auto at = index_.find(key);
    return at == index_.end() || is_nan(key) ? nullptr : &entries[at->second].second;
  }
  for (const auto& [k, v] : entries) {
    if (compare_keys(k, key) == 0 && !is_nan(key)) return &v;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (!index_.empty()) return find(Value::string(std::string(key)));
  for (const auto& [k, v] : entries) {
    if (k.is_string() && k.text() == key) return &v;
  }
  return nullptr;
}

Range::Range(int64_t a, int64_t b, int64_t s) : start(a), stop(b), step(s) {
  const auto low = static_cast<__int128>(a), high = static_cast<__int128>(b);
  __int128 n = 0;
  if (s > 0 && low < high) n = (high - low + s - 1) / s;
  if (s < 0 && low > high) n = (low - high - s - 1) / -static_cast<__int128>(s);
  length = n > INT64_MAX ? INT64_MAX : static_cast<int64_t>(n);
}

View::View(Value d, Kind k) : dict(std::move(d)), kind(k) {
  depth = checked_depth(dict.object()->depth + 1);
}

Value View::at(size_t i) const {
  const auto& [key, value] = dict.as_dict().entries[i];
  if (kind == Kind::kKeys) return key;
  if (kind == Kind::kValues) return value;
  return Value::tuple({key, value});
}

const char* type_name(const Value& v) {
  switch (v.type()) {
    case Type::kMissing:
    case Type::kUndefined:
      return "Undefined";
    case Type::kNone:
      return "NoneType";
    case Type::kBool:
      return "bool";
    case Type::kInt:
    case Type::kBigInt:
      return "int";
    case Type::kFloat:
      return "float";
    case Type::kString:
      return v.as_string().markup ? "Markup" : "str";
    case Type::kList:
      return "list";
    case Type::kTuple:
      return "tuple";
    case Type::kDict:
      return "dict";
    case Type::kRange:
      return "range";
    case Type::kView:
      return v.as<View>().kind == View::Kind::kKeys     ? "dict_keys"
             : v.as<View>().kind == View::Kind::kValues ? "dict_values"
                                                        : "dict_items";
    case Type::kIterator:
      return "generator";
    case Type::kNamespace:
      return "Namespace";
    case Type::kLoop:
      return "LoopContext";
    case Type::kMacro:
      return "Macro";
    case Type::kFunction:
      return "function";
    case Type::kObject:
      return "object";
  }
  return "object";
}

bool truthy(const Value& v) {
  switch (v.type()) {
    case Type::kMissing:
    case Type::kUndefined:
    case Type::kNone:
      return false;
    case Type::kBool:
    case Type::kInt:
      return v.as_int() != 0;
    case Type::kFloat:
      return v.as_float() != 0;
    case Type::kString:
      return !v.text().empty();
    case Type::kList:
    case Type::kTuple:
      return !v.items().empty();
    case Type::kDict:
      return !v.as_dict().entries.empty();
    case Type::kRange:
      return v.as<Range>().length != 0;
    case Type::kView:
      return !v.as<View>().dict.as_dict().entries.empty();
    default:
      return true;
  }
}

bool equal(const Value& a, const Value& b) {
  spend_steps(1);
  if (is_numeric(a) && is_numeric(b)) {
    return !is_nan(a) && !is_nan(b) && compare_numbers(a, b) == 0;
  }
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::kNone:
    case Type::kMissing:
    case Type::kUndefined:
      return true;
    case Type::kString:
      spend_scan(std::min(a.text().size(), b.text().size()) / 16);
      return a.text() == b.text();
    case Type::kList:
    case Type::kTuple:
      return a.object() == b.object() || equal_items(a.items(), b.items());
    case Type::kDict:
      return a.object() == b.object() || equal_dicts(a.as_dict(), b.as_dict());
    case Type::kRange:
      return equal_ranges(a.as<Range>(), b.as<Range>());
    default:
      return a.object() == b.object();
  }
}

bool less(const Value& a, const Value& b, bool or_equal) {
  spend_steps(1);
  if (is_numeric(a) && is_numeric(b)) {
    if (is_nan(a) || is_nan(b)) return false;
    const int order = compare_numbers(a, b);
    return or_equal ? order <= 0 : order < 0;
  }
  if (a.is_undefined() || b.is_undefined()) {
    throw Failure((a.is_undefined() ? a : b).text());
  }
  if (a.type() != b.type()) not_ordered(a, b, or_equal);
  if (a.is_string()) {
    // Bytes of UTF-8 order as code points do.
    spend_scan(std::min(a.text().size(), b.text().size()) / 16);
    const int order = a.text().compare(b.text());
    return or_equal ? order <= 0 : order < 0;
  }
  if (!a.is_sequence()) not_ordered(a, b, or_equal);
  const auto &x = a.items(), &y = b.items();
  for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
    if (!equal(x[i], y[i])) return less(x[i], y[i], or_equal);
  }
  return or_equal ? x.size() <= y.size() : x.size() < y.size();
}

void check_hashable(const Value& key) {
  spend_steps(1);
  switch (key.type()) {
    case Type::kList:
    case Type::kDict:
      throw Failure(std::string("unhashable type: '") + type_name(key) + "'");
    case Type::kTuple:
      for (const Value& v : key.items()) check_hashable(v);
      return;
    case Type::kView:
      if (key.as<View>().kind != View::Kind::kValues) {
        throw Failure(std::string("unhashable type: '") + type_name(key) + "'");
      }
      return;
    default:
      return;
  }
}

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  // d.ddde+XX: the shortest digits that give the number back; Python sets the point by the
  // exponent.
  std::string digits;
  const char* at = buffer;
  const bool minus = *at == '-';
  if (minus) ++at;
  for (; at < end && *at != 'e'; ++at) {
    if (*at != '.') digits += *at;
  }
  const int exponent = std::atoi(std::string(at + 1, static_cast<const char*>(end)).c_str());
  std::string out = minus ? "-" : "";
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    const std::string size = std::to_string(std::abs(exponent));
    return out + "e" + (exponent < 0 ? "-" : "+") + (size.size() < 2 ? "0" : "") + size;
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (exponent + 1 >= count) {
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  }
  const auto whole = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string to_text(const Value& v) {
  switch (v.type()) {
    case Type::kMissing:
    case Type::kUndefined:
      return "";
    case Type::kNone:
      return "None";
    case Type::kBool:
      return v.as_bool() ? "True" : "False";
    case Type::kInt:
      return std::to_string(v.as_int());
    case Type::kBigInt:
    case Type::kString:
      spend_bytes(v.text().size());
      return v.text();
    case Type::kFloat:
      return float_repr(v.as_float());
    case Type::kRange:
      return range_text(v.as<Range>());
    case Type::kIterator:
      return "<generator object>";
    case Type::kLoop:
    case Type::kMacro:
    case Type::kFunction:
    case Type::kObject:
      return describe(v);
    default:
      return repr(v);
  }
}

std::string repr(const Value& v) {
  std::string out;
  append_repr(out, v);
  spend_bytes(out.size());
  return out;
}

}  // namespace llorch::tmpl
