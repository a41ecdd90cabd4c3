// Iteration and look-up: iter(), len(), getattr, getitem, slices and `in`.
#include <algorithm>

#include "template/budget.h"
#include "template/loop.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

[[noreturn]] void not_iterable(const Value& v) {
  throw Failure(std::string("'") + type_name(v) + "' object is not iterable");
}

struct Reversed : Iterator {
  explicit Reversed(Value v, size_t n) : over(std::move(v)), left(n) {}
  bool next(Value& item) override {
    if (left == 0) return false;
    --left;
    if (over.is_sequence()) {
      item = over.items()[left];
    } else if (over.is(Type::kRange)) {
      item = over.as<Range>().at(static_cast<int64_t>(left));
    } else if (over.is(Type::kDict)) {
      item = over.as_dict().entries[left].first;
    } else {
      item = over.as<View>().at(left);
    }
    return true;
  }
  Value over;
  size_t left;
};

// A slice's bounds, as slice.indices() gives them.
struct Bounds {
  int64_t start, step, count;
};

std::optional<int64_t> slice_index(const Value* v) {
  if (v == nullptr || v->is(Type::kNone)) return {};
  if (v->is(Type::kBigInt)) return v->text()[0] == '-' ? INT64_MIN : INT64_MAX;
  if (!v->is_integer()) {
    throw Failure("slice indices must be integers or None or have an __index__ method");
  }
  return v->as_int();
}

Bounds slice_bounds(int64_t size, const Value* start, const Value* stop, const Value* step) {
  const int64_t by = slice_index(step).value_or(1);
  if (by == 0) throw Failure("slice step cannot be zero");
  const auto clip = [&](std::optional<int64_t> given, int64_t otherwise) {
    if (!given) return otherwise;
    int64_t i = *given < 0 ? *given + size : *given;
    const int64_t least = by < 0 ? -1 : 0, most = by < 0 ? size - 1 : size;
    return std::clamp(i, least, most);
  };
  const int64_t from = clip(slice_index(start), by < 0 ? size - 1 : 0);
  const int64_t to = clip(slice_index(stop), by < 0 ? -1 : size);
  return {from, by, Range(from, to, by).length};
}

Value slice_text(const String& s, const Bounds& b) {
  const auto start = static_cast<size_t>(b.start < 0 ? 0 : b.start);
  const size_t first = s.ascii() ? start : offset_of_char(s.text, start);
  if (b.count == 0) return Value::string("", s.markup);
  if (b.step == 1) {
    const auto rest = std::string_view(s.text).substr(first);
    spend_bytes(s.ascii() ? static_cast<size_t>(b.count) : rest.size());
    return Value::string(
        std::string(rest.substr(0, s.ascii() ? static_cast<size_t>(b.count)
                                             : offset_of_char(rest, static_cast<size_t>(b.count)))),
        s.markup);
  }
  spend_bytes(s.chars * sizeof(std::string_view));
  const auto chars = chars_of(s.text);
  std::string out;
  for (int64_t i = 0, at = b.start; i < b.count; ++i, at += b.step) {
    out += chars[static_cast<size_t>(at)];
  }
  return Value::string(std::move(out), s.markup);
}

std::optional<size_t> item_index(const Value& key, int64_t size) {
  if (!key.is_integer()) return {};
  const int64_t i = key.as_int() < 0 ? key.as_int() + size : key.as_int();
  return i >= 0 && i < size ? std::optional<size_t>(static_cast<size_t>(i)) : std::nullopt;
}

// v[key]; missing where Python raises TypeError or LookupError.
Value own_item(const Value& v, const Value& key) {
  switch (v.type()) {
    case Type::kUndefined:
      throw Failure(v.text());
    case Type::kDict: {
      check_hashable(key);
      const Value* found = v.as_dict().find(key);
      return found != nullptr ? *found : Value();
    }
    case Type::kList:
    case Type::kTuple: {
      const auto i = item_index(key, static_cast<int64_t>(v.items().size()));
      return i ? v.items()[*i] : Value();
    }
    case Type::kString: {
      const String& s = v.as_string();
      const auto i = item_index(key, static_cast<int64_t>(s.chars));
      if (!i) return Value();
      if (!s.ascii()) spend_bytes(s.text.size());
      const size_t at = s.ascii() ? *i : offset_of_char(s.text, *i);
      return Value::string(s.text.substr(at, char_bytes(s.text, at)), s.markup);
    }
    case Type::kRange: {
      const auto i = item_index(key, v.as<Range>().length);
      return i ? v.as<Range>().at(static_cast<int64_t>(*i)) : Value();
    }
    case Type::kObject:
      if (key.is_string() && std::string_view(v.as<Thing>().kind()) == "self") {
        return v.as<Thing>().attribute(key.text());
      }
      return Value();
    default:
      return Value();
  }
}

// The attributes that every Python object has and the sandbox hides.
bool is_dunder(std::string_view name) {
  return name == "__class__" || name == "__doc__" || name == "__init__" || name == "__dict__" ||
         name == "__str__" || name == "__repr__" || name == "__eq__" || name == "__hash__" ||
         name == "__len__" || name == "__getitem__" || name == "__iter__" || name == "__contains__";
}

}  // namespace

Value undefined_attribute(const Value& v, std::string_view name) {
  std::string type = type_name(v);
  if (v.is(Type::kNone)) return Value::undefined("'None' has no attribute " + repr(name));
  return Value::undefined("'" + type + " object' has no attribute " + repr(name));
}

Items::Items(const Value& v) : over_(v) {
  if (!is_iterable(v)) not_iterable(v);
}

bool Items::next(Value& item) {
  switch (over_.type()) {
    case Type::kList:
    case Type::kTuple:
      if (at_ == over_.items().size()) return false;
      item = over_.items()[at_++];
      return true;
    case Type::kDict:
      if (at_ == over_.as_dict().entries.size()) return false;
      item = over_.as_dict().entries[at_++].first;
      return true;
    case Type::kString: {
      const std::string& text = over_.text();
      if (at_ == text.size()) return false;
      const size_t n = char_bytes(text, at_);
      item = Value::string(text.substr(at_, n));
      at_ += n;
      return true;
    }
    case Type::kRange:
      if (static_cast<int64_t>(at_) == over_.as<Range>().length) return false;
      item = over_.as<Range>().at(static_cast<int64_t>(at_++));
      return true;
    case Type::kView:
      if (at_ == over_.as<View>().dict.as_dict().entries.size()) return false;
      item = over_.as<View>().at(at_++);
      return true;
    case Type::kIterator:
      return over_.as<Iterator>().next(item);
    case Type::kLoop:
      return over_.as<Loop>().next_pair(over_, item);
    default:
      return false;
  }
}

bool is_iterable(const Value& v) {
  switch (v.type()) {
    case Type::kUndefined:
    case Type::kString:
    case Type::kList:
    case Type::kTuple:
    case Type::kDict:
    case Type::kRange:
    case Type::kView:
    case Type::kIterator:
    case Type::kLoop:
      return true;
    default:
      return false;
  }
}

std::vector<Value> to_vector(const Value& v) {
  if (v.is_sequence()) {
    spend_steps(v.items().size() / 8);
    spend_bytes(v.items().size() * sizeof(Value));
    return v.items();
  }
  std::vector<Value> out;
  Items items(v);
  for (Value item; items.next(item);) {
    spend_steps(1);
    spend_bytes(sizeof(Value) + (v.is_string() ? sizeof(String) : 0));
    out.push_back(std::move(item));
  }
  return out;
}

std::optional<int64_t> length(const Value& v) {
  switch (v.type()) {
    case Type::kUndefined:
      return 0;
    case Type::kString:
      return static_cast<int64_t>(v.as_string().chars);
    case Type::kList:
    case Type::kTuple:
      return static_cast<int64_t>(v.items().size());
    case Type::kDict:
      return static_cast<int64_t>(v.as_dict().entries.size());
    case Type::kRange:
      return v.as<Range>().length;
    case Type::kView:
      return static_cast<int64_t>(v.as<View>().dict.as_dict().entries.size());
    case Type::kLoop:
      return v.as<Loop>().length();
    default:
      return {};
  }
}

int64_t length_of(const Value& v) {
  const auto n = length(v);
  if (!n) throw Failure(std::string("object of type '") + type_name(v) + "' has no len()");
  return *n;
}

Value make_iterator(std::shared_ptr<Iterator> it, const Value& source) {
  it->depth = source.object() ? source.object()->depth + 1 : 1;
  if (it->depth > kMostDepth) throw Failure("values are nested too deeply");
  return Value::object(Type::kIterator, std::move(it));
}

Value reversed(const Value& v) {
  switch (v.type()) {
    case Type::kString: {
      auto chars = to_vector(v);
      return make_iterator(std::make_shared<Reversed>(Value::list(std::move(chars)),
                                                      static_cast<size_t>(length_of(v))),
                           v);
    }
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
    case Type::kDict:
      return make_iterator(std::make_shared<Reversed>(v, static_cast<size_t>(length_of(v))), v);
    case Type::kView:
    case Type::kUndefined:  // it has a length and items, none
      return make_iterator(std::make_shared<Reversed>(v, static_cast<size_t>(length_of(v))), v);
    default:
      throw Failure(std::string("'") + type_name(v) + "' object is not reversible");
  }
}

Value own_attribute(const Value& v, std::string_view name) {
  switch (v.type()) {
    case Type::kNamespace: {
      const Value* found = v.as<Namespace>().attributes.find(name);
      return found != nullptr ? *found : Value();
    }
    case Type::kLoop:
      return v.as<Loop>().attribute(v, name);
    case Type::kMacro:
      return macro_attribute(v, name);
    case Type::kObject:
      return v.as<Thing>().attribute(name);
    case Type::kTuple:
      if (v.as<Sequence>().group && (name == "grouper" || name == "list")) {
        return v.items()[name == "list" ? 1 : 0];
      }
      break;
    case Type::kBool:
    case Type::kInt:
      if (name == "real" || name == "numerator") return Value::integer(v.as_int());
      if (name == "imag") return Value::integer(0);
      if (name == "denominator") return Value::integer(1);
      break;
    case Type::kFloat:
      if (name == "real") return v;
      if (name == "imag") return Value::number(0);
      break;
    default:
      break;
  }
  if (const Method method = find_method(v, name)) {
    return function(std::string(name),
                    [method, v](Env& env, const Args& args) { return method(env, v, args); });
  }
  return Value();
}

Value get_attribute(const Value& v, std::string_view name) {
  if (v.is_undefined() && !is_dunder(name)) throw Failure(v.text());
  if (is_mutator(v, name) || is_dunder(name)) {
    return Value::undefined("access to attribute " + repr(name) + " of '" + type_name(v) +
                            "' object is unsafe.");
  }
  Value found = own_attribute(v, name);
  if (found.is_missing()) found = own_item(v, Value::string(std::string(name)));
  return found.is_missing() ? undefined_attribute(v, name) : found;
}

Value get_item(const Value& v, const Value& key) {
  const bool hashable = !v.is(Type::kDict) || !(key.is(Type::kList) || key.is(Type::kDict));
  Value found = hashable ? own_item(v, key) : Value();
  if (found.is_missing() && key.is_string()) {
    if (is_mutator(v, key.text()) || is_dunder(key.text())) {
      return Value::undefined("access to attribute " + repr(key.text()) + " of '" + type_name(v) +
                              "' object is unsafe.");
    }
    found = own_attribute(v, key.text());
    if (found.is_missing()) return undefined_attribute(v, key.text());
  }
  if (!found.is_missing()) return found;
  const std::string type = v.is(Type::kNone) ? "None" : std::string(type_name(v)) + " object";
  return Value::undefined(type + " has no element " + repr(key));
}

Value get_slice(const Value& v, const Value* start, const Value* stop, const Value* step) {
  const auto bounds = [&] { return slice_bounds(length_of(v), start, stop, step); };
  switch (v.type()) {
    case Type::kUndefined:
      throw Failure(v.text());
    case Type::kString:
      return slice_text(v.as_string(), bounds());
    case Type::kList:
    case Type::kTuple: {
      const Bounds b = bounds();
      spend_steps(static_cast<uint64_t>(b.count) / 8);
      spend_bytes(static_cast<uint64_t>(b.count) * sizeof(Value));
      std::vector<Value> items;
      items.reserve(static_cast<size_t>(b.count));
      for (int64_t i = 0, at = b.start; i < b.count; ++i, at += b.step) {
        items.push_back(v.items()[static_cast<size_t>(at)]);
      }
      return v.is(Type::kList) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
    }
    case Type::kRange: {
      const Bounds b = bounds();
      const Range& r = v.as<Range>();
      const int64_t from = r.start + b.start * r.step, by = r.step * b.step;
      return Value::object(Type::kRange, std::make_shared<Range>(from, from + by * b.count, by));
    }
    case Type::kDict:
      throw Failure("unhashable type: 'slice'");
    default:
      throw Failure(std::string("'") + type_name(v) + "' object is not subscriptable");
  }
}

bool contains(const Value& container, const Value& item) {
  switch (container.type()) {
    case Type::kString:
      if (!item.is_string()) {
        throw Failure(std::string("'in <string>' requires string as left operand, not ") +
                      type_name(item));
      }
      return find_text(container.text(), item.text()) != std::string::npos;
    case Type::kDict:
      check_hashable(item);
      return container.as_dict().find(item) != nullptr;
    case Type::kRange:
      if (item.is_integer()) {
        const Range& r = container.as<Range>();
        if (r.length == 0) return false;
        const int64_t first = std::min(r.start, r.at(r.length - 1).as_int());
        const int64_t last = std::max(r.start, r.at(r.length - 1).as_int());
        return item.as_int() >= first && item.as_int() <= last &&
               (item.as_int() - r.start) % r.step == 0;
      }
      break;
    case Type::kView:
      if (container.as<View>().kind == View::Kind::kKeys) {
        return contains(container.as<View>().dict, item);
      }
      break;
    default:
      break;
  }
  if (!is_iterable(container)) {
    throw Failure(std::string("argument of type '") + type_name(container) + "' is not iterable");
  }
  Items items(container);
  for (Value v; items.next(v);) {
    if (equal(v, item)) return true;
  }
  return false;
}

}  // namespace llorch::tmpl
