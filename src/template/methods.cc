// The methods of str, list, tuple, dict, int and float.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "template/budget.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

struct Entry {
  std::string_view name;
  Method method;
};

Value dict_items(Env&, const Value& self, const Args& args) {
  const Params p("items", args, {});
  return Value::object(Type::kView, std::make_shared<View>(self, View::Kind::kItems));
}

Value dict_keys(Env&, const Value& self, const Args& args) {
  const Params p("keys", args, {});
  return Value::object(Type::kView, std::make_shared<View>(self, View::Kind::kKeys));
}

Value dict_values(Env&, const Value& self, const Args& args) {
  const Params p("values", args, {});
  return Value::object(Type::kView, std::make_shared<View>(self, View::Kind::kValues));
}

Value dict_get(Env&, const Value& self, const Args& args) {
  const Params p("get", args, {"/key", "/default"}, 1);
  check_hashable(p[0]);
  const Value* found = self.as_dict().find(p[0]);
  return found != nullptr ? *found : p.has(1) ? p[1] : Value::none();
}

Value copy(Env&, const Value& self, const Args& args) {
  const Params p("copy", args, {});
  return self;
}

Value dict_fromkeys(Env&, const Value&, const Args& args) {
  const Params p("fromkeys", args, {"/iterable", "/value"}, 1);
  auto d = std::make_shared<Dict>();
  for (const Value& key : to_vector(p[0])) d->set(key, p.has(1) ? p[1] : Value::none());
  return Value::dict(std::move(d));
}

Value sequence_index(Env&, const Value& self, const Args& args) {
  const Params p("index", args, {"/value", "/start", "/stop"}, 1);
  const auto& items = self.items();
  const auto size = static_cast<int64_t>(items.size());
  const auto clip = [size](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size);
  };
  const int64_t from = clip(p.integer(1, 0)), to = clip(p.integer(2, size));
  for (int64_t i = from; i < to; ++i) {
    if (equal(items[static_cast<size_t>(i)], p[0])) return Value::integer(i);
  }
  throw Failure(repr(p[0]) + " is not in " + type_name(self));
}

Value sequence_count(Env&, const Value& self, const Args& args) {
  const Params p("count", args, {"/value"}, 1);
  const auto& items = self.items();
  return Value::integer(
      std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(v, p[0]); }));
}

Value range_index(Env&, const Value& self, const Args& args) {
  const Params p("index", args, {"/value"}, 1);
  if (!p[0].is_integer() || !contains(self, p[0])) {
    throw Failure(repr(p[0]) + " is not in range");
  }
  const Range& r = self.as<Range>();
  return Value::integer((p[0].as_int() - r.start) / r.step);
}

Value range_count(Env&, const Value& self, const Args& args) {
  const Params p("count", args, {"/value"}, 1);
  return Value::integer(contains(self, p[0]) ? 1 : 0);
}

Value bit_length(Env&, const Value& self, const Args& args) {
  const Params p("bit_length", args, {});
  const int64_t i = self.as_int();
  auto left = i < 0 ? ~static_cast<uint64_t>(i) + 1 : static_cast<uint64_t>(i);
  int bits = 0;
  for (; left != 0; left >>= 1) ++bits;
  return Value::integer(bits);
}

Value is_integer(Env&, const Value& self, const Args& args) {
  const Params p("is_integer", args, {});
  return Value::boolean(std::isfinite(self.as_float()) &&
                        self.as_float() == std::floor(self.as_float()));
}

constexpr Entry kDict[] = {{"copy", copy},      {"fromkeys", dict_fromkeys},
                           {"get", dict_get},   {"items", dict_items},
                           {"keys", dict_keys}, {"values", dict_values}};
constexpr Entry kList[] = {{"copy", copy}, {"count", sequence_count}, {"index", sequence_index}};
constexpr Entry kTuple[] = {{"count", sequence_count}, {"index", sequence_index}};
constexpr Entry kRange[] = {{"count", range_count}, {"index", range_index}};
constexpr Entry kInt[] = {{"bit_length", bit_length}};
constexpr Entry kFloat[] = {{"is_integer", is_integer}};

template <size_t N>
Method find_in(const Entry (&table)[N], std::string_view name) {
  for (const Entry& e : table) {
    if (e.name == name) return e.method;
  }
  return nullptr;
}

template <size_t N>
bool is_one_of(const char* const (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

Method find_method(const Value& self, std::string_view name) {
  switch (self.type()) {
    case Type::kString:
      return find_string_method(name);
    case Type::kDict:
      return find_in(kDict, name);
    case Type::kList:
      return find_in(kList, name);
    case Type::kTuple:
      return find_in(kTuple, name);
    case Type::kRange:
      return find_in(kRange, name);
    case Type::kBool:
    case Type::kInt:
      return find_in(kInt, name);
    case Type::kFloat:
      return find_in(kFloat, name);
    default:
      return nullptr;
  }
}

bool is_mutator(const Value& self, std::string_view name) {
  static constexpr const char* kOfDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr const char* kOfList[] = {"append", "clear", "pop",    "reverse",
                                            "insert", "sort",  "extend", "remove"};
  if (self.is(Type::kDict)) return is_one_of(kOfDict, name);
  return self.is(Type::kList) && is_one_of(kOfList, name);
}

}  // namespace llorch::tmpl
