// Filters over sequences. Those that are generators in jinja2 are here too: they do nothing until
// they are read, and can be read once.
#include <algorithm>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

bool is_absent(const Value& v) { return v.is_missing() || v.is(Type::kNone); }

// make_attrgetter: "a.b.0" looked up step by step.
class Getter {
 public:
  Getter() = default;
  explicit Getter(const Value& attribute, Value otherwise = Value())
      : otherwise_(std::move(otherwise)) {
    if (is_absent(attribute)) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    for (const auto part : split(attribute.text(), ".", -1)) {
      bool digits = !part.empty();
      for (size_t at = 0; at < part.size(); at += char_bytes(part, at)) {
        digits = digits && is_digit(char_at(part, at));
      }
      parts_.push_back(digits ? parse_integer(part, 10) : Value::string(std::string(part)));
      if (parts_.back().is_missing()) throw Failure("invalid literal for int() with base 10");
    }
  }

  Value operator()(const Value& item) const {
    Value v = item;
    for (const Value& part : parts_) {
      spend_steps(1);
      v = get_item(v, part);
      if (v.is_undefined() && !is_absent(otherwise_)) v = otherwise_;
    }
    return v;
  }

 private:
  std::vector<Value> parts_;
  Value otherwise_;
};

Value ignore_case(const Value& v) {
  if (!v.is_string()) return v;
  spend_bytes(v.text().size() * 2);
  return Value::string(lower(v.text()));
}

std::vector<Value> sorted(std::vector<Value> items, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? less(keys[b], keys[a]) : less(keys[a], keys[b]);
  });
  spend_bytes(items.size() * (sizeof(Value) + sizeof(size_t)));
  std::vector<Value> out;
  out.reserve(items.size());
  for (const size_t i : order) out.push_back(std::move(items[i]));
  return out;
}

Value dictsort(Env&, const Value& v, const Args& args) {
  const Params p("dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string by = p.text(1, "key");
  if (by != "key" && by != "value") {
    throw Failure("You can only sort by either \"key\" or \"value\"");
  }
  if (v.is_undefined()) throw Failure(v.text());
  if (!v.is(Type::kDict)) {
    throw Failure(std::string("'") + type_name(v) + "' object has no attribute 'items'");
  }
  std::vector<Value> items, keys;
  for (const auto& [key, value] : v.as_dict().entries) {
    spend_steps(1);
    items.push_back(Value::tuple({key, value}));
    const Value& chosen = by == "key" ? key : value;
    keys.push_back(p.boolean(0, false) ? chosen : ignore_case(chosen));
  }
  return Value::list(sorted(std::move(items), keys, p.boolean(2, false)));
}

Value sort(Env&, const Value& v, const Args& args) {
  const Params p("sort", args, {"reverse", "case_sensitive", "attribute"});
  std::vector<Getter> getters;
  if (p.given(2) && p[2].is_string()) {
    for (const auto part : split(p[2].text(), ",", -1)) {
      getters.emplace_back(Value::string(std::string(part)));
    }
  } else {
    getters.emplace_back(p.has(2) ? p[2] : Value());
  }
  std::vector<Value> items = to_vector(v), keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const Getter& get : getters) {
      key.push_back(p.boolean(1, false) ? get(item) : ignore_case(get(item)));
    }
    keys.push_back(Value::list(std::move(key)));
  }
  return Value::list(sorted(std::move(items), keys, p.boolean(0, false)));
}

template <bool Max>
Value extreme(Env&, const Value& v, const Args& args) {
  const Params p(Max ? "max" : "min", args, {"case_sensitive", "attribute"});
  const Getter get(p.has(1) ? p[1] : Value());
  Value best, best_key;
  Items items(v);
  for (Value item; items.next(item);) {
    spend_steps(1);
    const Value key = p.boolean(0, false) ? get(item) : ignore_case(get(item));
    if (best.is_missing() || (Max ? less(best_key, key) : less(key, best_key))) {
      best = item;
      best_key = key;
    }
  }
  return best.is_missing() ? Value::undefined("No aggregated item, sequence was empty.") : best;
}

Value groupby(Env&, const Value& v, const Args& args) {
  const Params p("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const Getter get(p[0], p.has(1) ? p[1] : Value());
  const bool case_sensitive = p.boolean(2, false);
  const auto key_of = [&](const Value& item) {
    return case_sensitive ? get(item) : ignore_case(get(item));
  };
  std::vector<Value> items = to_vector(v), keys;
  for (const Value& item : items) keys.push_back(key_of(item));
  items = sorted(std::move(items), keys, false);
  std::vector<Value> groups, group;
  Value group_key;
  const auto close = [&] {
    if (group.empty()) return;
    const Value key = case_sensitive ? group_key : get(group[0]);
    auto tuple = std::make_shared<Sequence>(std::vector<Value>{key, Value::list(std::move(group))});
    tuple->group = true;
    groups.push_back(Value::object(Type::kTuple, std::move(tuple)));
    group.clear();
  };
  for (const Value& item : items) {
    const Value key = key_of(item);
    if (!group.empty() && !equal(key, group_key)) close();
    if (group.empty()) group_key = key;
    group.push_back(item);
  }
  close();
  return Value::list(std::move(groups));
}

Value first(Env&, const Value& v, const Args& args) {
  const Params p("first", args, {});
  Items items(v);
  Value item;
  return items.next(item) ? item : Value::undefined("No first item, sequence was empty.");
}

Value last(Env&, const Value& v, const Args& args) {
  const Params p("last", args, {});
  if (v.is_string()) {
    const std::string& text = v.text();
    if (text.empty()) return Value::undefined("No last item, sequence was empty.");
    return Value::string(text.substr(char_before(text, text.size())));
  }
  if (v.is_sequence()) {
    return v.items().empty() ? Value::undefined("No last item, sequence was empty.")
                             : v.items().back();
  }
  Items items(reversed(v));
  Value item;
  return items.next(item) ? item : Value::undefined("No last item, sequence was empty.");
}

Value length_filter(Env&, const Value& v, const Args& args) {
  const Params p("length", args, {});
  return Value::integer(length_of(v));
}

Value list(Env&, const Value& v, const Args& args) {
  const Params p("list", args, {});
  return Value::list(to_vector(v));
}

Value join(Env& env, const Value& v, const Args& args) {
  const Params p("join", args, {"d", "attribute"});
  std::vector<Value> items = to_vector(v);
  if (p.given(1)) {
    const Getter get(p[1]);
    for (Value& item : items) item = get(item);
  }
  return join_text(p.has(0) ? p[0] : Value::string(""), items, env.autoescape);
}

Value reverse(Env&, const Value& v, const Args& args) {
  const Params p("reverse", args, {});
  if (v.is_string()) {
    const Value minus = Value::integer(-1);
    return get_slice(v, nullptr, nullptr, &minus);
  }
  switch (v.type()) {
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
    case Type::kDict:
    case Type::kView:
    case Type::kUndefined:
      return reversed(v);
    default:
      break;
  }
  if (!is_iterable(v)) throw Failure("argument must be iterable");
  std::vector<Value> items = to_vector(v);
  std::reverse(items.begin(), items.end());
  return Value::list(std::move(items));
}

Value sum(Env&, const Value& v, const Args& args) {
  const Params p("sum", args, {"attribute", "start"});
  const Getter get(p.has(0) ? p[0] : Value());
  Value total = p.has(1) ? p[1] : Value::integer(0);
  if (total.is_string()) throw Failure("sum() can't sum strings [use ''.join(seq) instead]");
  Items items(v);
  for (Value item; items.next(item);) {
    spend_steps(1);
    total = binary(Op::kAdd, total, get(item));
  }
  return total;
}

// Generators: `Next` makes the next item of what `items` gives.
struct Generator : Iterator {
  using Next = std::function<bool(Items&, Value&)>;
  Generator(const Value& v, Next n) : over(v), make(std::move(n)) {}
  bool next(Value& item) override {
    spend_steps(1);
    if (!items) items.emplace(over);
    return make(*items, item);
  }
  const Value over;
  std::optional<Items> items;
  const Next make;
};

Value generator(const Value& v, Generator::Next next) {
  spend_bytes(sizeof(Generator));
  return make_iterator(std::make_shared<Generator>(v, std::move(next)), v);
}

Value nothing() {
  return generator(Value::list({}), [](Items&, Value&) { return false; });
}

Value items_filter(Env&, const Value& v, const Args& args) {
  const Params p("items", args, {});
  if (v.is_undefined()) return nothing();
  return generator(v.is(Type::kDict)
                       ? Value::object(Type::kView, std::make_shared<View>(v, View::Kind::kItems))
                       : v,
                   [mapping = v.is(Type::kDict)](Items& items, Value& item) {
                     if (!mapping) throw Failure("Can only get item pairs from a mapping.");
                     return items.next(item);
                   });
}

Value unique(Env&, const Value& v, const Args& args) {
  const Params p("unique", args, {"case_sensitive", "attribute"});
  const Getter get(p.has(1) ? p[1] : Value());
  const auto seen = std::make_shared<Dict>();
  return generator(v, [get, seen, keep = p.boolean(0, false)](Items& items, Value& item) {
    while (items.next(item)) {
      spend_steps(1);
      spend_bytes(sizeof(Value));
      const Value key = keep ? get(item) : ignore_case(get(item));
      check_hashable(key);
      if (seen->find(key) != nullptr) continue;
      seen->set(key, Value::none());
      return true;
    }
    return false;
  });
}

Value batch(Env&, const Value& v, const Args& args) {
  const Params p("batch", args, {"linecount", "fill_with"}, 1);
  // What is no number is never reached.
  const int64_t count = p[0].is_integer() ? p[0].as_int() : -1;
  const Value fill = p.has(1) ? p[1] : Value();
  const auto waiting = std::make_shared<Value>();  // read, but of the next batch
  return generator(v, [count, fill, waiting](Items& items, Value& out) {
    std::vector<Value> line;
    bool ended = false;
    if (!waiting->is_missing()) line.push_back(*waiting);
    *waiting = Value();
    for (Value item;;) {
      if (!items.next(item)) {
        ended = true;
        break;
      }
      spend_steps(1);
      spend_bytes(sizeof(Value));
      if (static_cast<int64_t>(line.size()) == count) {
        *waiting = item;
        break;
      }
      line.push_back(item);
    }
    if (ended && line.empty()) return false;
    if (ended && !is_absent(fill) && static_cast<int64_t>(line.size()) < count) {
      const auto missing = static_cast<uint64_t>(count) - line.size();
      if (missing > UINT32_MAX) throw Failure("the template makes too much text");
      spend_bytes(missing * sizeof(Value));
      line.resize(static_cast<size_t>(count), fill);
    }
    out = Value::list(std::move(line));
    return true;
  });
}

Value slice(Env&, const Value& v, const Args& args) {
  const Params p("slice", args, {"slices", "fill_with"}, 1);
  const Value wanted = p[0];
  const Value fill = p.has(1) ? p[1] : Value();
  const auto number = std::make_shared<int64_t>(0);
  const auto all = std::make_shared<std::vector<Value>>();
  return generator(v, [wanted, fill, number, all](Items& items, Value& out) {
    if (!wanted.is_integer()) {
      throw Failure(std::string("unsupported operand type(s) for //: 'int' and '") +
                    type_name(wanted) + "'");
    }
    const int64_t slices = wanted.as_int();
    if (*number == 0) {
      for (Value item; items.next(item);) {
        spend_steps(1);
        spend_bytes(sizeof(Value));
        all->push_back(item);
      }
    }
    if (slices == 0) throw Failure("integer division or modulo by zero");
    if (*number >= slices) return false;
    const auto size = static_cast<int64_t>(all->size());
    const int64_t each = size / slices, extra = size % slices, i = (*number)++;
    const int64_t begin = i * each + std::min(i, extra);
    const int64_t end = begin + each + (i < extra ? 1 : 0);
    std::vector<Value> part(all->begin() + begin, all->begin() + end);
    if (!is_absent(fill) && i >= extra) part.push_back(fill);
    out = Value::list(std::move(part));
    return true;
  });
}

// A filter or test by the name that is a value, as map, select and the like take it.
template <class Found, class Find>
Found named(Find find, const Value& name, const char* kind) {
  const Found found = name.is_string() ? find(name.text()) : nullptr;
  if (found == nullptr) throw Failure(std::string("No ") + kind + " named " + repr(name) + ".");
  return found;
}

Value map(Env& env, const Value& v, const Args& args) {
  if (!truthy(v)) return nothing();
  const auto prepare = [&env, args]() -> std::function<Value(const Value&)> {
    const Value* attribute = args.find("attribute");
    if (args.positional.empty() && attribute != nullptr) {
      const Value* otherwise = args.find("default");
      for (const auto& [name, value] : args.named) {
        if (name != "attribute" && name != "default") {
          throw Failure("Unexpected keyword argument " + repr(name));
        }
      }
      return [get = Getter(*attribute, otherwise != nullptr ? *otherwise : Value())](
                 const Value& item) { return get(item); };
    }
    if (args.positional.empty()) throw Failure("map requires a filter argument");
    const auto filter = named<Filter>(find_filter, args.positional[0], "filter");
    Args rest = args;
    rest.positional.erase(rest.positional.begin());
    return [&env, filter, rest](const Value& item) { return filter(env, item, rest); };
  };
  const auto made = std::make_shared<std::function<Value(const Value&)>>();
  return generator(v, [prepare, made](Items& items, Value& item) {
    if (!*made) *made = prepare();
    if (!items.next(item)) return false;
    item = (*made)(item);
    return true;
  });
}

template <bool Keep, bool Attribute>
Value choose(Env& env, const Value& v, const Args& args) {
  if (!truthy(v)) return nothing();
  const auto prepare = [&env, args]() -> std::function<bool(const Value&)> {
    const size_t skip = Attribute ? 1 : 0;
    if (args.positional.size() < skip) throw Failure("Missing parameter for attribute name");
    const Getter get = Attribute ? Getter(args.positional[0]) : Getter();
    if (args.positional.size() == skip) {
      return [get](const Value& item) { return truthy(get(item)) == Keep; };
    }
    const auto test = named<Test>(find_test, args.positional[skip], "test");
    Args rest = args;
    rest.positional.erase(rest.positional.begin(),
                          rest.positional.begin() + static_cast<std::ptrdiff_t>(skip) + 1);
    return
        [&env, get, test, rest](const Value& item) { return test(env, get(item), rest) == Keep; };
  };
  const auto made = std::make_shared<std::function<bool(const Value&)>>();
  return generator(v, [prepare, made](Items& items, Value& item) {
    if (!*made) *made = prepare();
    while (items.next(item)) {
      spend_steps(1);
      if ((*made)(item)) return true;
    }
    return false;
  });
}

struct Entry {
  std::string_view name;
  Filter filter;
};

constexpr Entry kFilters[] = {
    {"batch", batch},
    {"count", length_filter},
    {"dictsort", dictsort},
    {"first", first},
    {"groupby", groupby},
    {"items", items_filter},
    {"join", join},
    {"last", last},
    {"length", length_filter},
    {"list", list},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", choose<false, false>},
    {"rejectattr", choose<false, true>},
    {"reverse", reverse},
    {"select", choose<true, false>},
    {"selectattr", choose<true, true>},
    {"slice", slice},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  for (const Entry& e : kFilters) {
    if (e.name == name) return e.filter;
  }
  return nullptr;
}

}  // namespace llorch::tmpl
