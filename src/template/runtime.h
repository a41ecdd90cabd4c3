// What filters, tests, methods and the interpreter share: calls, iteration, look-up, operators.
// Everything here throws Failure where Python or jinja2 would raise.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "template/value.h"

namespace llorch::tmpl {

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  const Value* find(std::string_view name) const;  // among the named; null if absent
};

// The arguments of a call by the names of its parameters, the first `required` of which must be
// there. A name that begins with '*' begins those that cannot be given by position; one that begins
// with '/' (removed) can be given by position only.
class Params {
 public:
  Params(const char* function, const Args& args, std::initializer_list<const char*> names,
         size_t required = 0);
  bool has(size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](size_t i) const { return *values_[i]; }  // only if has(i)
  bool given(size_t i) const { return has(i) && !values_[i]->is(Type::kNone); }
  int64_t integer(size_t i, int64_t otherwise) const;
  bool boolean(size_t i, bool otherwise) const { return has(i) ? truthy(*values_[i]) : otherwise; }
  std::string text(size_t i, std::string_view otherwise = "") const;  // str()
  const std::string& string(size_t i) const;                          // must be one

 private:
  const char* function_;
  std::vector<const Value*> values_;
};

// What calls back into the render that goes on. One per render.
class Env {
 public:
  virtual ~Env() = default;
  virtual Value call(const Value& function, const Args& args) = 0;
  // Keeps a namespace, which may hold itself, until the render ends and takes it apart.
  virtual void own(const std::shared_ptr<Namespace>& ns) = 0;
  bool autoescape = false;
};

struct Function : Object {
  using Body = std::function<Value(Env&, const Args&)>;
  Function(std::string n, Body b) : name(std::move(n)), body(std::move(b)) {}
  const std::string name;
  const Body body;
};
Value function(std::string name, Function::Body body);

// An object with a few attributes of its own: cycler, joiner, self.
struct Thing : Object {
  virtual const char* kind() const = 0;
  virtual Value attribute(std::string_view name) = 0;  // missing if there is none
  virtual Value call(Env& env, const Args& args);
};

// Reads a value as Python's iter() does. Throws Failure "'int' object is not iterable".
class Items {
 public:
  explicit Items(const Value& v);
  bool next(Value& item);

 private:
  Value over_;
  size_t at_ = 0;
};
bool is_iterable(const Value& v);
std::vector<Value> to_vector(const Value& v);
std::optional<int64_t> length(const Value& v);  // none: it has no len()
int64_t length_of(const Value& v);
Value make_iterator(std::shared_ptr<Iterator> it, const Value& source);
Value reversed(const Value& v);  // throws Failure where Python's reversed() does

// jinja's environment.getattr and getitem: attribute first, or item first; undefined if neither.
Value get_attribute(const Value& v, std::string_view name);
Value get_item(const Value& v, const Value& key);
Value get_slice(const Value& v, const Value* start, const Value* stop, const Value* step);
// The attribute alone: missing if there is none.
Value own_attribute(const Value& v, std::string_view name);
Value undefined_attribute(const Value& v, std::string_view name);
bool contains(const Value& container, const Value& item);  // `item in container`

enum class Op : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
Value binary(Op op, const Value& a, const Value& b);
Value negative(const Value& v);
Value positive(const Value& v);

// A method of a built-in type, or null. Called with what it belongs to.
using Method = Value (*)(Env&, const Value& self, const Args&);
Method find_method(const Value& self, std::string_view name);
Method find_string_method(std::string_view name);
// append, pop, update and so on, which the immutable sandbox hides.
bool is_mutator(const Value& self, std::string_view name);

using Filter = Value (*)(Env&, const Value& v, const Args&);
using Test = bool (*)(Env&, const Value& v, const Args&);
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);
// The three tables that make up find_filter.
Filter find_text_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);
Filter find_number_filter(std::string_view name);

std::vector<std::pair<std::string, Value>> globals();

Value macro_attribute(const Value& macro, std::string_view name);  // missing if there is none
std::string describe(const Value& v);  // str() of functions, loops and the like
Value join_text(const Value& separator, const std::vector<Value>& items, bool autoescape);
std::string percent_format(const std::string& format, const Value& arguments, bool markup);
std::string brace_format(const std::string& format, const Args& args, bool markup);
std::string format_number(const Value& v, std::string_view spec);  // format(v, spec)

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(const Value& v, const JsonStyle& style);
// Throws Error{kBadRequest} "what: reason".
Value from_json(std::string_view text, const std::string& what);

// Python's int() and float() of a text; none where they raise ValueError.
Value parse_integer(std::string_view text, int64_t base);  // missing if it is none
std::optional<double> parse_float(std::string_view text);

}  // namespace llorch::tmpl
