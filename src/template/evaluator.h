// Variables and expressions of a render. Knows no statement.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "template/ast.h"
#include "template/runtime.h"

namespace llorch::tmpl {

// The names a template can see without assigning them.
struct Context {
  const Context* parent = nullptr;
  std::unordered_map<std::string, Value> names;

  Value resolve(const std::string& name) const {
    for (const Context* c = this; c != nullptr; c = c->parent) {
      if (const auto at = c->names.find(name); at != c->names.end()) return at->second;
    }
    return Value();
  }
};

// The variables of one call of a function. Owned by the run: macros and loops outlive their calls.
struct Activation {
  std::vector<Value> slots;
  Activation* outer = nullptr;
  Context* context = nullptr;
  bool captured = false;
};

// Sets a variable while it lives.
template <class T>
struct Restore {
  Restore(T& v, T now) : variable(v), before(v) { v = now; }
  ~Restore() { variable = before; }
  T& variable;
  T before;
};

// Everything throws Failure; line_ is where that was.
class Evaluator : public Env {
 protected:
  // One level of what nests by recursion.
  struct Deeper {
    explicit Deeper(int& d);
    ~Deeper() { --depth; }
    int& depth;
  };

  Activation* activate(int slots, Activation* outer, Context* context);
  void release(Activation* a);
  void capture();
  Value& slot(Place p);
  void enter(const Scope& scope);
  void leave(const Scope& scope);
  void assign(const Node& target, const Value& v, bool exported);
  void set_attribute(const Node& target, const Value& v);
  void unpack(const Node& target, const Value& v, bool exported);

  Value eval(const Node& n);
  Args arguments(const Node& n);

  std::vector<std::unique_ptr<Activation>> activations_;
  Activation* act_ = nullptr;          // of the function that runs
  const Value* block_text_ = nullptr;  // what a filter block's filter is applied to
  bool escape_ = false;                // autoescape where this code stands
  int depth_ = 0;
  int line_ = 1;

 private:
  Value eval_operator(const Node& n);
  std::vector<Value> eval_all(const Nodes& nodes);
  Value eval_dict(const Node& n);
  Value eval_item(const Node& n);
  Value eval_compare(const Node& n);
  static bool compare(Compare op, const Value& a, const Value& b);
  Value eval_concat(const Node& n);
  static void add_named(Args& args, const Value& more);
  Value eval_call(const Node& n);
  Value eval_filter(const Node& n);
  Value eval_test(const Node& n);

  std::vector<Activation*> free_;
};

}  // namespace llorch::tmpl
