#include "template/interpreter.h"

#include <deque>

#include "template/budget.h"
#include "template/evaluator.h"
#include "template/loop.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

constexpr int kMostCalls = 190;  // of macros in macros: about where Python's own recursion ends

enum class Flow { kNormal, kBreak, kContinue };

struct Macro : Object {
  const Node* node = nullptr;
  Activation* outer = nullptr;
  bool escape = false;
};

const Context& global_names() {
  static const Context names = [] {
    Context c;
    for (auto& [name, value] : globals()) c.names.emplace(name, value);
    return c;
  }();
  return names;
}

class Interpreter : public Evaluator {
 public:
  Interpreter(const Program& program, const Dict& variables) : program_(program) {
    contexts_.emplace_back();
    contexts_.back().parent = &global_names();
    for (const auto& [key, value] : variables.entries) contexts_[0].names[key.text()] = value;
    contexts_.emplace_back();  // what the template itself sets
    contexts_.back().parent = &contexts_[0];
  }

  ~Interpreter() override {
    // One at a time, for they may hold each other in a chain of any length.
    for (const auto& a : activations_) a->slots.clear();
    for (const auto& ns : namespaces_) ns->attributes.clear();
  }

  std::string run() {
    std::string out;
    out_ = &out;
    try {
      act_ = activate(program_.slots, nullptr, &contexts_[1]);
      if (program_.self.slot >= 0) slot(program_.self) = self_value();
      enter(program_.scope);
      exec_all(program_.body);
    } catch (const Failure& e) {
      throw Failure("line " + std::to_string(line_) + ": " + e.what());
    }
    return out;
  }

  Value call(const Value& f, const Args& args) override {
    switch (f.type()) {
      case Type::kFunction:
        return f.as<Function>().body(*this, args);
      case Type::kMacro:
        return call_macro(f.as<Macro>(), args);
      case Type::kLoop:
        return f.as<Loop>().call(args);
      case Type::kObject:
        return f.as<Thing>().call(*this, args);
      case Type::kUndefined:
        throw Failure(f.text());
      default:
        throw Failure(std::string("'") + type_name(f) + "' object is not callable");
    }
  }

  void own(const std::shared_ptr<Namespace>& ns) override { namespaces_.push_back(ns); }

 private:
  // ------------------------------------------------------------ statements

  void print(std::string_view text) {
    spend_bytes(text.size());
    out_->append(text);
  }

  Flow exec_all(const Nodes& nodes) {
    for (const NodePtr& n : nodes) {
      if (const Flow flow = exec(*n); flow != Flow::kNormal) return flow;
    }
    return Flow::kNormal;
  }

  Flow exec(const Node& n) {
    const Deeper deeper(depth_);
    spend_steps(1);
    line_ = n.line;
    switch (n.kind) {
      case Kind::kOutput:
        output(n);
        return Flow::kNormal;
      case Kind::kIf:
        return exec_if(n);
      case Kind::kFor:
        return exec_for(n);
      case Kind::kAssign:
        exec_assign(n);
        return Flow::kNormal;
      case Kind::kMacro:
        slot(n.place) = macro(n);
        if (n.exported) act_->context->names[n.name] = slot(n.place);
        return Flow::kNormal;
      case Kind::kCallBlock:
        exec_call_block(n);
        return Flow::kNormal;
      case Kind::kBlock:
        exec_block(n);
        return Flow::kNormal;
      case Kind::kBreak:
        return Flow::kBreak;
      case Kind::kContinue:
        return Flow::kContinue;
      default:
        return exec_scoped(n);
    }
  }

  void output(const Node& n) {
    for (const NodePtr& item : n.items) {
      if (item->data) {
        print(item->value.text());
        continue;
      }
      const Value v = eval(*item);
      if (v.is_string() && (!escape_ || v.as_string().markup)) {
        print(v.text());
      } else {
        print(escape_ ? html_escaped(to_text(v)) : to_text(v));
      }
    }
  }

  Flow exec_if(const Node& n) {
    if (truthy(eval(*n.items[0]))) return exec_all(n.body);
    for (const NodePtr& elif : n.elifs) {
      if (truthy(eval(*elif->items[0]))) return exec_all(elif->body);
    }
    return exec_all(n.otherwise);
  }

  void exec_assign(const Node& n) {
    check_namespaces(*n.target);
    assign(*n.target, eval(*n.items[0]), n.exported);
  }

  void check_namespaces(const Node& target) {
    if (target.kind == Kind::kNsRef && !slot(target.place).is(Type::kNamespace)) {
      throw Failure("cannot assign attribute on non-namespace object");
    }
    for (const NodePtr& item : target.items) check_namespaces(*item);
  }

  // Runs `nodes` into a text of their own.
  Flow capture_output(const Nodes& nodes, std::string& text) {
    const Restore<std::string*> into(out_, &text);
    return exec_all(nodes);
  }

  Flow exec_scoped(const Node& n) {
    enter(n.scope);
    Flow flow = Flow::kNormal;
    if (n.kind == Kind::kWith) {
      for (size_t i = 0; i < n.items.size(); ++i) {
        assign(*n.parameters[i], eval(*n.items[i]), false);
      }
      flow = exec_all(n.body);
    } else if (n.kind == Kind::kAutoescape) {
      const bool setting = truthy(eval(*n.items[0]));
      const Restore<bool> dynamic(autoescape, setting), lexical(escape_, setting);
      flow = exec_all(n.body);
    } else {
      std::string text;
      flow = capture_output(n.body, text);
      if (flow != Flow::kNormal) return flow;
      const Value whole = Value::string(std::move(text), escape_);
      if (n.kind == Kind::kFilterBlock) {
        const Restore<const Value*> block(block_text_, &whole);
        print_string(eval(*n.target));
      } else {
        assign_block(n, whole);
      }
    }
    leave(n.scope);
    return flow;
  }

  void assign_block(const Node& n, const Value& whole) {
    Value v = whole;
    if (n.items[0]) {
      const Restore<const Value*> block(block_text_, &whole);
      v = eval(*n.items[0]);
    }
    if (autoescape) v = Value::string(to_text(v), true);
    check_namespaces(*n.target);
    assign(*n.target, v, n.exported);
  }

  // What jinja2 joins without str().
  void print_string(const Value& v) {
    if (!v.is_string()) {
      throw Failure(std::string("sequence item 0: expected str instance, ") + type_name(v) +
                    " found");
    }
    print(v.text());
  }

  void exec_call_block(const Node& n) {
    const Value caller = macro(n);
    if (!n.target) return print_string(call(caller, {}));
    const Node& target = *n.target;
    const Value f = eval(*target.target);
    Args args = arguments(target);
    args.named.emplace_back("caller", caller);
    print_string(call(f, args));
  }

  Value self_value();

  void exec_block(const Node& n) {
    Context* context = act_->context;
    if (n.scoped) {
      contexts_.emplace_back();
      contexts_.back().parent = context;
      context = &contexts_.back();
      for (const auto& [name, place] : n.visible) {
        if (const Value& v = slot(place); !v.is_missing()) context->names[name] = v;
      }
    }
    run_block(n, context);
  }

  void run_block(const Node& n, Context* context) {
    count_call();
    Activation* a = activate(n.slots, nullptr, context);
    {
      const Restore<Activation*> into(act_, a);
      const Restore<int> calls(calls_, calls_ + 1);
      if (n.place.slot >= 0) slot(n.place) = self_value();
      if (n.caller.slot >= 0) {
        slot(n.caller) = Value::undefined("there is no parent block called " + repr(n.name) + ".");
      }
      enter(n.scope);
      exec_all(n.body);
    }
    release(a);
  }

  // ------------------------------------------------------------ loops

  // The items that pass a loop's condition.
  struct Filtered : Iterator {
    Filtered(Interpreter& i, const Node& n, Activation* a, const Value& v)
        : interpreter(i), node(n), activation(a), items(v) {}
    bool next(Value& item) override {
      const Restore<Activation*> into(interpreter.act_, activation);
      if (!begun) interpreter.enter(node.test_scope);
      begun = true;
      while (items.next(item)) {
        interpreter.assign(*node.test_target, item, false);
        if (truthy(interpreter.eval(*node.items[1]))) return true;
      }
      return false;
    }
    Interpreter& interpreter;
    const Node& node;
    Activation* activation;
    Items items;
    bool begun = false;
  };

  Flow exec_for(const Node& n) {
    const Value iterable = eval(*n.items[0]);
    if (!n.recursive) return loop_over(n, iterable, 0, nullptr);
    const Value text = recursive_loop(n, act_, escape_, iterable, 0);
    print(text.text());
    return Flow::kNormal;
  }

  Value recursive_loop(const Node& n, Activation* outer, bool escape, const Value& iterable,
                       int depth0) {
    count_call();
    Activation* a = activate(n.slots, outer, outer->context);
    std::string text;
    {
      const Restore<Activation*> into(act_, a);
      const Restore<std::string*> buffer(out_, &text);
      const Restore<bool> lexical(escape_, escape);
      const Restore<int> calls(calls_, calls_ + 1);
      const auto again = [this, &n, outer, escape](const Value& inner, int depth) {
        return recursive_loop(n, outer, escape, inner, depth);
      };
      loop_over(n, iterable, depth0, again);
    }
    release(a);
    return Value::string(std::move(text), escape);
  }

  Flow loop_over(const Node& n, Value iterable, int depth0, Loop::Recurse recurse) {
    if (n.items[1]) {
      capture();
      iterable = make_iterator(std::make_shared<Filtered>(*this, n, act_, iterable), iterable);
    }
    bool finished_one = false;
    Flow out = Flow::kNormal;
    const auto body = [&](const Value& item, const Value* loop) {
      assign(*n.target, item, false);
      if (loop != nullptr) slot(n.place) = *loop;
      enter(n.scope);
      const Flow flow = exec_all(n.body);
      // jinja2 notes that the loop has run at the body's end, which these two skip.
      finished_one |= flow == Flow::kNormal;
      return flow != Flow::kBreak;
    };
    Value item;
    if (n.place.slot >= 0) {
      capture();
      spend_bytes(sizeof(Loop));
      const auto loop = std::make_shared<Loop>(iterable, depth0, std::move(recurse));
      const Value value = Value::object(Type::kLoop, loop);
      while (loop->next(item)) {
        spend_steps(1);
        if (!body(item, &value)) break;
      }
    } else {
      Items items(iterable);
      while (items.next(item)) {
        spend_steps(1);
        if (!body(item, nullptr)) break;
      }
    }
    leave(n.scope);
    if (!finished_one && !n.otherwise.empty()) {
      enter(n.else_scope);
      out = exec_all(n.otherwise);
      leave(n.else_scope);
    }
    return out;
  }

  // ------------------------------------------------------------ macros

  Value macro(const Node& n) {
    capture();
    spend_bytes(sizeof(Macro));
    auto m = std::make_shared<Macro>();
    m->node = &n;
    m->outer = act_;
    m->escape = escape_;
    return Value::object(Type::kMacro, std::move(m));
  }

  void count_call() const {
    if (calls_ >= kMostCalls) throw Failure("maximum recursion depth exceeded");
  }

  Value call_macro(const Macro& m, const Args& args) {
    count_call();
    const Node& n = *m.node;
    Activation* a = activate(n.slots, m.outer, m.outer->context);
    bind(n, args, *a);
    std::string text;
    const int line = line_;
    {
      const Restore<Activation*> into(act_, a);
      const Restore<std::string*> buffer(out_, &text);
      const Restore<bool> lexical(escape_, m.escape);
      const Restore<int> calls(calls_, calls_ + 1);
      enter(n.scope);
      fill_defaults(n);
      exec_all(n.body);
    }
    release(a);
    line_ = line;
    return Value::string(std::move(text), autoescape);
  }

  // As Macro.__call__ shares the arguments out.
  void bind(const Node& n, const Args& args, Activation& a) const {
    const std::string name = n.kind == Kind::kMacro ? repr(n.name) : "None";
    const size_t count = n.parameters.size();
    auto named = args.named;
    const auto take = [&named](const std::string& key) {
      for (auto at = named.begin(); at != named.end(); ++at) {
        if (at->first != key) continue;
        Value v = at->second;
        named.erase(at);
        return v;
      }
      return Value();
    };
    for (size_t i = 0; i < count; ++i) {
      const Node& p = *n.parameters[i];
      a.slots[static_cast<size_t>(p.place.slot)] =
          i < args.positional.size() ? args.positional[i] : take(p.name);
    }
    if (n.caller.slot >= 0) {
      Value caller = take("caller");
      if (caller.is_missing() || caller.is(Type::kNone)) {
        caller = Value::undefined("No caller defined");
      }
      a.slots[static_cast<size_t>(n.caller.slot)] = caller;
    }
    if (n.kwargs.slot >= 0) {
      auto rest = std::make_shared<Dict>();
      for (auto& [key, value] : named) rest->set(Value::string(key), value);
      a.slots[static_cast<size_t>(n.kwargs.slot)] = Value::dict(std::move(rest));
    } else if (!named.empty()) {
      throw Failure("macro " + name + " takes no keyword argument " + repr(named[0].first));
    }
    const size_t given = args.positional.size();
    if (n.varargs.slot >= 0) {
      std::vector<Value> rest;
      if (given > count)
        rest.assign(args.positional.begin() + static_cast<int64_t>(count), args.positional.end());
      a.slots[static_cast<size_t>(n.varargs.slot)] = Value::tuple(std::move(rest));
    } else if (given > count) {
      throw Failure("macro " + name + " takes not more than " + std::to_string(count) +
                    " argument(s)");
    }
  }

  void fill_defaults(const Node& n) {
    const size_t first_default = n.parameters.size() - n.defaults.size();
    for (size_t i = 0; i < n.parameters.size(); ++i) {
      const Node& p = *n.parameters[i];
      if (!slot(p.place).is_missing()) continue;
      slot(p.place) = i >= first_default
                          ? eval(*n.defaults[i - first_default])
                          : Value::undefined("parameter " + repr(p.name) + " was not provided");
    }
  }

  friend struct Self;

  const Program& program_;
  std::deque<Context> contexts_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::string* out_ = nullptr;
  int calls_ = 0;
};

// `self`: the template's blocks by name.
struct Self : Thing {
  explicit Self(Interpreter& i) : interpreter(i) {}
  const char* kind() const override { return "self"; }
  Value attribute(std::string_view name) override {
    for (const Node* block : interpreter.program_.blocks) {
      if (block->name != name) continue;
      return function(block->name, [this, block](Env&, const Args&) {
        std::string text;
        {
          const Restore<std::string*> buffer(interpreter.out_, &text);
          interpreter.run_block(*block, &interpreter.contexts_[1]);
        }
        return Value::string(std::move(text), interpreter.autoescape);
      });
    }
    return Value();
  }
  Interpreter& interpreter;
};

Value Interpreter::self_value() {
  return Value::object(Type::kObject, std::make_shared<Self>(*this));
}

}  // namespace

Value macro_attribute(const Value& macro, std::string_view name) {
  const Macro& m = macro.as<Macro>();
  const Node& n = *m.node;
  if (name == "name") return n.kind == Kind::kMacro ? Value::string(n.name) : Value::none();
  if (name == "catch_kwargs") return Value::boolean(n.kwargs.slot >= 0);
  if (name == "catch_varargs") return Value::boolean(n.varargs.slot >= 0);
  if (name == "caller") return Value::boolean(n.scoped);
  if (name == "arguments") {
    std::vector<Value> names;
    for (const NodePtr& p : n.parameters) names.push_back(Value::string(p->name));
    return Value::tuple(std::move(names));
  }
  return Value();
}

std::string describe(const Value& v) {
  switch (v.type()) {
    case Type::kLoop: {
      Loop& loop = v.as<Loop>();
      return "<LoopContext " + std::to_string(loop.index0 + 1) + "/" +
             std::to_string(loop.length()) + ">";
    }
    case Type::kMacro: {
      const Node& n = *v.as<Macro>().node;
      return n.kind == Kind::kMacro ? "<Macro " + repr(n.name) + ">" : "<Macro anonymous>";
    }
    case Type::kFunction:
      return "<function " + v.as<Function>().name + ">";
    default:
      return std::string("<") + v.as<Thing>().kind() + ">";
  }
}

std::string run(const Program& program, const Dict& variables) {
  return Interpreter(program, variables).run();
}

}  // namespace llorch::tmpl
