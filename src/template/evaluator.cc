#include "template/evaluator.h"

#include "template/budget.h"
#include "template/python_text.h"

namespace llorch::tmpl {
namespace {

constexpr int kMostFrames = 2500;  // of nested evaluations: what keeps the stack small

}  // namespace

Evaluator::Deeper::Deeper(int& d) : depth(d) {
  if (++depth > kMostFrames) {
    --depth;
    throw Failure("maximum recursion depth exceeded");
  }
}

Activation* Evaluator::activate(int slots, Activation* outer, Context* context) {
  spend_bytes(sizeof(Activation) + static_cast<size_t>(slots) * sizeof(Value));
  if (free_.empty()) {
    activations_.push_back(std::make_unique<Activation>());
    free_.push_back(activations_.back().get());
  }
  Activation* a = free_.back();
  free_.pop_back();
  a->slots.assign(static_cast<size_t>(slots), Value());
  a->outer = outer;
  a->context = context;
  a->captured = false;
  return a;
}

void Evaluator::release(Activation* a) {
  if (a->captured) return;
  a->slots.clear();
  free_.push_back(a);
}

void Evaluator::capture() {
  for (Activation* a = act_; a != nullptr && !a->captured; a = a->outer) a->captured = true;
}

Value& Evaluator::slot(Place p) {
  Activation* a = act_;
  for (int i = 0; i < p.hops; ++i) a = a->outer;
  return a->slots[static_cast<size_t>(p.slot)];
}

void Evaluator::enter(const Scope& scope) {
  for (const Load& load : scope.loads) {
    switch (load.kind) {
      case Load::Kind::kResolve:
        slot(load.place) = act_->context->resolve(load.name);
        break;
      case Load::Kind::kAlias:
        slot(load.place) = slot(load.from);
        break;
      case Load::Kind::kUndefined:
        slot(load.place) = Value();
    }
  }
}

void Evaluator::leave(const Scope& scope) {
  for (const Place p : scope.cleared) slot(p) = Value();
}

void Evaluator::assign(const Node& target, const Value& v, bool exported) {
  if (target.kind == Kind::kName) {
    slot(target.place) = v;
    if (exported) act_->context->names[target.name] = v;
  } else if (target.kind == Kind::kNsRef) {
    set_attribute(target, v);
  } else {
    unpack(target, v, exported);
  }
}

void Evaluator::set_attribute(const Node& target, const Value& v) {
  if (target.attribute[0] == '_') {
    throw Failure("Chat templates cannot store underscore-prefixed attributes on a namespace");
  }
  spend_bytes(sizeof(Value));
  slot(target.place).as<Namespace>().attributes.set(Value::string(target.attribute), v);
}

void Evaluator::unpack(const Node& target, const Value& v, bool exported) {
  if (!is_iterable(v)) {
    throw Failure(std::string("cannot unpack non-iterable ") + type_name(v) + " object");
  }
  const size_t wanted = target.items.size();
  std::vector<Value> values;
  Items items(v);
  for (Value item; values.size() <= wanted && items.next(item);) values.push_back(item);
  if (values.size() > wanted) {
    throw Failure("too many values to unpack (expected " + std::to_string(wanted) + ")");
  }
  if (values.size() < wanted) {
    throw Failure("not enough values to unpack (expected " + std::to_string(wanted) + ", got " +
                  std::to_string(values.size()) + ")");
  }
  for (size_t i = 0; i < wanted; ++i) assign(*target.items[i], values[i], exported);
}

Value Evaluator::eval(const Node& n) {
  const Deeper deeper(depth_);
  spend_steps(1);
  line_ = n.line;
  switch (n.kind) {
    case Kind::kConst:
      return n.value;
    case Kind::kName: {
      const Value& v = slot(n.place);
      return v.is_missing() ? Value::undefined(repr(n.name) + " is undefined") : v;
    }
    case Kind::kGetattr:
      return get_attribute(eval(*n.target), n.name);
    case Kind::kGetitem:
      return eval_item(n);
    case Kind::kCall:
      return eval_call(n);
    case Kind::kFilter:
      return eval_filter(n);
    case Kind::kTest:
      return eval_test(n);
    case Kind::kCompare:
      return eval_compare(n);
    case Kind::kConcat:
      return eval_concat(n);
    case Kind::kList:
      return Value::list(eval_all(n.items));
    case Kind::kTuple:
      return Value::tuple(eval_all(n.items));
    case Kind::kDict:
      return eval_dict(n);
    default:
      return eval_operator(n);
  }
}

Value Evaluator::eval_operator(const Node& n) {
  switch (n.kind) {
    case Kind::kAnd:
    case Kind::kOr: {
      Value left = eval(*n.items[0]);
      return truthy(left) == (n.kind == Kind::kOr) ? left : eval(*n.items[1]);
    }
    case Kind::kNot:
      return Value::boolean(!truthy(eval(*n.target)));
    case Kind::kNegative:
      return negative(eval(*n.target));
    case Kind::kPositive:
      return positive(eval(*n.target));
    case Kind::kCond:
      if (truthy(eval(*n.items[0]))) return eval(*n.items[1]);
      if (n.items[2]) return eval(*n.items[2]);
      return Value::undefined("the inline if-expression on line " + std::to_string(n.line) +
                              " evaluated to false and no else section was defined.");
    default: {
      static_assert(static_cast<int>(Kind::kPow) - static_cast<int>(Kind::kAdd) ==
                    static_cast<int>(Op::kPow) - static_cast<int>(Op::kAdd));
      const auto op = static_cast<Op>(static_cast<int>(n.kind) - static_cast<int>(Kind::kAdd));
      const Value left = eval(*n.items[0]);
      return binary(op, left, eval(*n.items[1]));
    }
  }
}

std::vector<Value> Evaluator::eval_all(const Nodes& nodes) {
  std::vector<Value> out;
  out.reserve(nodes.size());
  spend_bytes(nodes.size() * sizeof(Value));
  for (const NodePtr& n : nodes) out.push_back(eval(*n));
  return out;
}

Value Evaluator::eval_dict(const Node& n) {
  auto d = std::make_shared<Dict>();
  spend_bytes(n.items.size() * sizeof(Value));
  for (size_t i = 0; i < n.items.size(); i += 2) {
    const Value key = eval(*n.items[i]);
    d->set(key, eval(*n.items[i + 1]));
  }
  return Value::dict(std::move(d));
}

Value Evaluator::eval_item(const Node& n) {
  const Value v = eval(*n.target);
  const Node& key = *n.items[0];
  if (key.kind != Kind::kSlice) return get_item(v, eval(key));
  Value part[3];
  for (size_t i = 0; i < 3; ++i) {
    part[i] = key.items[i] ? eval(*key.items[i]) : Value::none();
  }
  return get_slice(v, &part[0], &part[1], &part[2]);
}

Value Evaluator::eval_compare(const Node& n) {
  Value left = eval(*n.items[0]);
  for (size_t i = 0; i < n.operators.size(); ++i) {
    Value right = eval(*n.items[i + 1]);
    if (!compare(n.operators[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

bool Evaluator::compare(Compare op, const Value& a, const Value& b) {
  switch (op) {
    case Compare::kEq:
      return equal(a, b);
    case Compare::kNe:
      return !equal(a, b);
    case Compare::kLt:
      return less(a, b);
    case Compare::kLtEq:
      return less(a, b, true);
    case Compare::kGt:
      return less(b, a);
    case Compare::kGtEq:
      return less(b, a, true);
    case Compare::kIn:
      return contains(b, a);
    case Compare::kNotIn:
      return !contains(b, a);
  }
  return false;
}

Value Evaluator::eval_concat(const Node& n) {
  std::vector<Value> parts;
  bool markup = false;
  for (const NodePtr& item : n.items) {
    parts.push_back(eval(*item));
    markup |= escape_ && parts.back().is_string() && parts.back().as_string().markup;
  }
  std::string text;
  for (const Value& v : parts) {
    const bool safe = v.is_string() && v.as_string().markup;
    std::string piece = to_text(v);
    if (markup && !safe) piece = html_escaped(piece);
    spend_bytes(piece.size());
    text += piece;
  }
  return Value::string(std::move(text), markup);
}

Args Evaluator::arguments(const Node& n) {
  Args args;
  args.positional.reserve(n.items.size());
  for (const NodePtr& item : n.items) args.positional.push_back(eval(*item));
  for (const auto& [name, value] : n.named) args.named.emplace_back(name, eval(*value));
  if (n.more_args) {
    for (Value& v : to_vector(eval(*n.more_args))) args.positional.push_back(std::move(v));
  }
  if (n.more_named) add_named(args, eval(*n.more_named));
  return args;
}

void Evaluator::add_named(Args& args, const Value& more) {
  if (!more.is(Type::kDict)) {
    throw Failure(std::string("argument after ** must be a mapping, not ") + type_name(more));
  }
  for (const auto& [key, value] : more.as_dict().entries) {
    spend_steps(1);
    if (!key.is_string()) throw Failure("keywords must be strings");
    if (args.find(key.text()) != nullptr) {
      throw Failure("got multiple values for keyword argument " + repr(key.text()));
    }
    args.named.emplace_back(key.text(), value);
  }
}

Value Evaluator::eval_call(const Node& n) {
  const Node& target = *n.target;
  if (target.kind != Kind::kGetattr) {
    const Value f = eval(target);
    return call(f, arguments(n));
  }
  // A method called where it is named needs no function made of it.
  const Value self = eval(*target.target);
  const Method method = is_mutator(self, target.name) ? nullptr : find_method(self, target.name);
  if (method != nullptr) return method(*this, self, arguments(n));
  line_ = target.line;
  const Value f = get_attribute(self, target.name);
  return call(f, arguments(n));
}

Value Evaluator::eval_filter(const Node& n) {
  const Value v = n.target ? eval(*n.target) : *block_text_;
  if (n.function == nullptr) throw Failure("No filter named " + repr(n.name) + " found.");
  const auto filter = reinterpret_cast<Filter>(n.function);
  const Args args = arguments(n);
  line_ = n.line;
  return filter(*this, v, args);
}

Value Evaluator::eval_test(const Node& n) {
  const Value v = eval(*n.target);
  if (n.function == nullptr) throw Failure("No test named " + repr(n.name) + " found.");
  const auto test = reinterpret_cast<Test>(n.function);
  const Args args = arguments(n);
  line_ = n.line;
  return Value::boolean(test(*this, v, args));
}

}  // namespace llorch::tmpl
