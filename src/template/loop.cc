#include "template/loop.h"

#include <algorithm>

#include "template/budget.h"

namespace llorch::tmpl {

Loop::Loop(const Value& iterable, int depth0, Recurse recurse)
    : iterable_(iterable), items_(iterable), depth0_(depth0), recurse_(std::move(recurse)) {}

bool Loop::next(Value& item) {
  if (peeked_) {
    peeked_ = false;
    if (after_.is_missing()) return false;
    item = after_;
    after_ = Value();
  } else if (!items_.next(item)) {
    return false;
  }
  ++index0;
  before_ = std::move(current_);
  current_ = item;
  return true;
}

bool Loop::next_pair(const Value& self, Value& item) {
  Value v;
  if (!next(v)) return false;
  item = Value::tuple({v, self});
  return true;
}

const Value& Loop::peek() {
  if (!peeked_) {
    Value v;
    after_ = items_.next(v) ? v : Value();
    peeked_ = !after_.is_missing();
  }
  return after_;
}

int64_t Loop::length() {
  if (length_) return *length_;
  length_ = tmpl::length(iterable_);
  if (!length_) {
    std::vector<Value> rest;
    for (Value v; items_.next(v);) {
      spend_steps(1);
      spend_bytes(sizeof v);
      rest.push_back(v);
    }
    length_ = static_cast<int64_t>(rest.size()) + index0 + 1 + (peeked_ ? 1 : 0);
    items_ = Items(Value::list(std::move(rest)));
  }
  return *length_;
}

Value Loop::attribute(const Value& self, std::string_view name) {
  if (name == "index0") return Value::integer(index0);
  if (name == "index") return Value::integer(index0 + 1);
  if (name == "first") return Value::boolean(index0 == 0);
  if (name == "last") return Value::boolean(peek().is_missing());
  if (name == "length") return Value::integer(length());
  if (name == "revindex") return Value::integer(length() - index0);
  if (name == "revindex0") return Value::integer(length() - index0 - 1);
  if (name == "depth") return Value::integer(depth0_ + 1);
  if (name == "depth0") return Value::integer(depth0_);
  if (name == "previtem") {
    return index0 == 0 || before_.is_missing() ? Value::undefined("there is no previous item")
                                               : before_;
  }
  if (name == "nextitem") {
    const Value& v = peek();
    return v.is_missing() ? Value::undefined("there is no next item") : v;
  }
  if (name == "cycle") {
    return function("cycle", [self](Env&, const Args& args) {
      if (!args.named.empty()) throw Failure("cycle() got an unexpected keyword argument");
      if (args.positional.empty()) throw Failure("no items for cycling given");
      const auto n = static_cast<int64_t>(args.positional.size());
      return args.positional[static_cast<size_t>((self.as<Loop>().index0 % n + n) % n)];
    });
  }
  if (name == "changed") {
    return function("changed", [self](Env&, const Args& args) {
      if (!args.named.empty()) throw Failure("changed() got an unexpected keyword argument");
      auto& last = self.as<Loop>().last_changed_;
      if (last && last->size() == args.positional.size() &&
          std::equal(last->begin(), last->end(), args.positional.begin(), equal)) {
        return Value::boolean(false);
      }
      last = args.positional;
      return Value::boolean(true);
    });
  }
  return Value();
}

Value Loop::call(const Args& args) {
  const Params p("loop", args, {"iterable"}, 1);
  if (!recurse_) {
    throw Failure("The loop must have the 'recursive' marker to be called recursively.");
  }
  return recurse_(p[0], depth0_ + 1);
}

}  // namespace llorch::tmpl
