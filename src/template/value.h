// The values a template works on: Python's, as far as a template can tell. Knows no template.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llorch::tmpl {

// What Python would raise. The text has no line yet.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// No value is nested deeper: containers know their depth, so that walking one cannot use up the
// stack.
inline constexpr int kMostDepth = 400;

enum class Type : uint8_t {
  kMissing,    // a variable that has no value (never seen by a template)
  kUndefined,  // jinja's Undefined
  kNone,
  kBool,
  kInt,
  kBigInt,  // an integer of more than 64 bits: kept and printed, not computed with
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kView,      // of a dict: keys(), values() or items()
  kIterator,  // a generator: read once
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
  kObject,  // cycler, joiner, self
};

// What a Value refers to. Immutable and shared, except for namespaces, iterators and loops.
struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
  int depth = 0;  // of containers within
};

struct String;
struct Sequence;
struct Dict;

class Value {
 public:
  Value() = default;
  static Value none() { return Value(Type::kNone); }
  static Value undefined(std::string hint);  // what an operation on it complains of
  static Value boolean(bool b);
  static Value integer(int64_t i);
  static Value number(double d);
  static Value string(std::string text, bool markup = false);  // spends its bytes
  static Value big_integer(std::string digits);                // with sign
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value dict(std::shared_ptr<Dict> d);
  static Value object(Type type, std::shared_ptr<Object> o);

  Type type() const { return type_; }
  bool is(Type t) const { return type_ == t; }
  bool is_missing() const { return type_ == Type::kMissing; }
  bool is_undefined() const { return type_ == Type::kUndefined; }
  bool is_string() const { return type_ == Type::kString; }
  bool is_integer() const { return type_ == Type::kInt || type_ == Type::kBool; }  // fits 64 bits
  bool is_number() const { return is_integer() || type_ == Type::kFloat; }
  bool is_sequence() const { return type_ == Type::kList || type_ == Type::kTuple; }

  // Valid only for the type that has it.
  bool as_bool() const { return int_ != 0; }
  int64_t as_int() const { return int_; }  // also of kBool
  double as_float() const { return float_; }
  double as_double() const { return is(Type::kFloat) ? float_ : static_cast<double>(int_); }
  const String& as_string() const;
  const std::string& text() const;  // of kString, kBigInt (digits), kUndefined (hint)
  const std::vector<Value>& items() const;
  const Dict& as_dict() const;
  const std::shared_ptr<Object>& object() const { return object_; }
  template <class T>
  T& as() const {
    return static_cast<T&>(*object_);
  }

 private:
  explicit Value(Type type) : type_(type) {}

  Type type_ = Type::kMissing;
  union {
    int64_t int_ = 0;
    double float_;
  };
  std::shared_ptr<Object> object_;
};

struct String : Object {
  String(std::string t, bool m);
  bool ascii() const { return chars == text.size(); }
  const std::string text;  // UTF-8; a lone surrogate stands as its three bytes
  const size_t chars;
  const bool markup;  // markupsafe.Markup
};

struct Sequence : Object {
  explicit Sequence(std::vector<Value> v);
  const std::vector<Value> items;
  bool group = false;  // of groupby: has .grouper and .list
};

// Total order over what can be a key; 1, 1.0 and true are one key.
struct KeyLess {
  bool operator()(const Value& a, const Value& b) const;
};

// In order of insertion. Filled by its maker, not changed afterwards.
struct Dict : Object {
  // A key that is there keeps its place. Throws Failure if the key cannot be one.
  void set(const Value& key, Value value);
  const Value* find(const Value& key) const;  // null if absent
  const Value* find(std::string_view key) const;
  void clear();
  std::vector<std::pair<Value, Value>> entries;

 private:
  std::map<Value, size_t, KeyLess> index_;  // once there are many
};

struct Range : Object {
  Range(int64_t a, int64_t b, int64_t s);
  Value at(int64_t i) const { return Value::integer(start + i * step); }
  const int64_t start, stop, step;
  int64_t length = 0;
};

struct View : Object {
  enum class Kind { kKeys, kValues, kItems };
  View(Value d, Kind k);
  Value at(size_t i) const;
  const Value dict;
  const Kind kind;
};

struct Iterator : Object {
  virtual bool next(Value& item) = 0;  // false: there is none; may throw Failure
};

struct Namespace : Object {
  Dict attributes;
};

// Python's class name, for messages.
const char* type_name(const Value& v);

bool truthy(const Value& v);
// `==`. Throws Failure only where a depth limit is met.
bool equal(const Value& a, const Value& b);
// `a < b` (or `<=` with or_equal). Throws Failure where Python raises TypeError.
bool less(const Value& a, const Value& b, bool or_equal = false);
void check_hashable(const Value& key);

// str() and repr().
std::string to_text(const Value& v);
std::string repr(const Value& v);
std::string float_repr(double d);

}  // namespace llorch::tmpl
