// Which variable a name means. jinja2 decides that before a template runs, by rules that show: a
// name that a scope assigns is its own from the scope's begin on, and starts as what the scope
// around it holds then; a name that no scope around assigns or read before is looked up in the
// context where its scope begins. This follows its idtracking and compiler.
#include <algorithm>
#include <map>
#include <set>

#include "template/lexer.h"
#include "template/parser.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

struct Function {
  Function* outer;
  int depth;
  int slots = 0;
};

struct Variable {
  const Function* function = nullptr;
  int slot = -1;
  bool operator<(const Variable& o) const {
    return std::pair(function, slot) < std::pair(o.function, o.slot);
  }
};

// The variables of one scope, shared by the copies of its symbols.
struct Slots {
  Function* function;
  std::map<std::string, Variable> by_name;
};

struct Loading {
  enum class Kind { kParameter, kResolve, kAlias, kUndefined } kind;
  Variable from;
  std::string name;
};

class Symbols {
 public:
  Symbols(const Symbols* parent, Function* function)
      : parent_(parent), slots_(std::make_shared<Slots>(Slots{function, {}})) {}

  const Variable* find(const std::string& name) const {
    for (const Symbols* s = this; s != nullptr; s = s->parent_) {
      if (const auto at = s->refs_.find(name); at != s->refs_.end()) return &at->second;
    }
    return nullptr;
  }

  void load(const std::string& name) {
    if (find(name) == nullptr) define(name, {Loading::Kind::kResolve, {}, name});
  }

  void store(const std::string& name) {
    stores_.insert(name);
    if (refs_.contains(name)) return;
    const Variable* outer = parent_ == nullptr ? nullptr : parent_->find(name);
    if (outer != nullptr) {
      define(name, {Loading::Kind::kAlias, *outer, name});
    } else {
      define(name, {Loading::Kind::kUndefined, {}, name});
    }
  }

  Variable declare(const std::string& name) {
    stores_.insert(name);
    return define(name, {Loading::Kind::kParameter, {}, name});
  }

  void branch_update(const std::vector<Symbols>& branches) {
    std::set<std::string> stores;
    for (const Symbols& b : branches) stores.insert(b.stores_.begin(), b.stores_.end());
    for (const std::string& own : stores_) stores.erase(own);
    for (const Symbols& b : branches) {
      for (const auto& [name, v] : b.refs_) refs_[name] = v;
      for (const auto& [v, loading] : b.loads_) loads_[v] = loading;
      stores_.insert(b.stores_.begin(), b.stores_.end());
    }
    for (const std::string& name : stores) {
      const Variable* outer = parent_ == nullptr ? nullptr : parent_->find(name);
      loads_[*find(name)] = outer != nullptr ? Loading{Loading::Kind::kAlias, *outer, name}
                                             : Loading{Loading::Kind::kResolve, {}, name};
    }
  }

  const std::map<Variable, Loading>& loads() const { return loads_; }
  const Symbols* parent() const { return parent_; }
  const std::set<std::string>& stores() const { return stores_; }

 private:
  Variable define(const std::string& name, Loading loading) {
    auto [at, made] = slots_->by_name.try_emplace(name);
    if (made) at->second = {slots_->function, slots_->function->slots++};
    refs_[name] = at->second;
    loads_[at->second] = std::move(loading);
    return at->second;
  }

  const Symbols* parent_;
  std::shared_ptr<Slots> slots_;
  std::map<std::string, Variable> refs_;
  std::map<Variable, Loading> loads_;
  std::set<std::string> stores_;
};

// The parts of a node in the order in which jinja2 visits them.
std::vector<Node*> children(const Node& n) {
  std::vector<Node*> out;
  const auto add = [&out](const NodePtr& part) {
    if (part) out.push_back(part.get());
  };
  const auto add_all = [&](const Nodes& parts) {
    for (const NodePtr& part : parts) add(part);
  };
  if (n.kind == Kind::kFor) {
    add(n.target);
    add(n.items[0]);
    add_all(n.body);
    add_all(n.otherwise);
    add(n.items[1]);
    return out;
  }
  if (n.kind == Kind::kFilterBlock) {
    add_all(n.body);
    add(n.target);
    return out;
  }
  add(n.target);
  if (n.kind == Kind::kWith) add_all(n.parameters);
  add_all(n.items);
  for (const auto& [name, value] : n.named) add(value);
  add(n.more_args);
  add(n.more_named);
  if (n.kind != Kind::kWith) add_all(n.parameters);
  add_all(n.defaults);
  add_all(n.body);
  add_all(n.elifs);
  add_all(n.otherwise);
  return out;
}

// Which of `names` are read before they are assigned; stops at blocks.
class Undeclared {
 public:
  Undeclared(const Nodes& nodes, std::set<std::string> names) : names_(std::move(names)) {
    for (const NodePtr& n : nodes) visit(*n);
  }
  bool has(const std::string& name) const { return found_.contains(name); }

 private:
  void visit(const Node& n) {
    if (n.kind == Kind::kBlock) return;
    if (n.kind == Kind::kName) {
      if (!n.stored && !n.parameter && names_.contains(n.name)) {
        found_.insert(n.name);
      } else {
        names_.erase(n.name);
      }
    }
    for (const Node* part : children(n)) visit(*part);
  }
  std::set<std::string> names_, found_;
};

bool any_node(const Node& n, bool (*is)(const Node&)) {
  if (is(n)) return true;
  const auto parts = children(n);
  return std::any_of(parts.begin(), parts.end(), [is](const Node* p) { return any_node(*p, is); });
}

// What a scope reads and assigns, without the scopes within.
class Analysis {
 public:
  explicit Analysis(Symbols& symbols) : symbols_(&symbols) {}

  void visit_all(const Nodes& nodes) {
    for (const NodePtr& n : nodes) visit(*n);
  }

  void visit(const Node& n) {
    switch (n.kind) {
      case Kind::kName:
        return visit_name(n);
      case Kind::kNsRef:
        return symbols_->load(n.name);
      case Kind::kIf:
        return visit_if(n);
      case Kind::kMacro:
        return symbols_->store(n.name);
      case Kind::kAssign:
        visit(*n.items[0]);
        return visit(*n.target);
      case Kind::kFor:
        return visit(*n.items[0]);
      case Kind::kCallBlock:
      case Kind::kFilterBlock:
      case Kind::kAssignBlock:
        if (n.target) visit(*n.target);
        return;
      case Kind::kWith:
        return visit_all(n.items);
      case Kind::kAutoescape:
      case Kind::kBlock:
        return;
      default:
        for (const Node* part : children(n)) visit(*part);
    }
  }

  void declare_target(const Node& n) {
    if (n.kind == Kind::kName) symbols_->declare(n.name);
    for (const NodePtr& item : n.items) declare_target(*item);
  }

 private:
  void visit_name(const Node& n) {
    if (n.parameter) {
      symbols_->declare(n.name);
    } else if (n.stored) {
      symbols_->store(n.name);
    } else {
      symbols_->load(n.name);
    }
  }

  void visit_if(const Node& n) {
    visit(*n.items[0]);
    Symbols* original = symbols_;
    std::vector<Symbols> branches;
    for (const Nodes* branch : {&n.body, &n.elifs, &n.otherwise}) {
      branches.push_back(*original);
      symbols_ = &branches.back();
      visit_all(*branch);
      symbols_ = original;
    }
    original->branch_update(branches);
  }

  Symbols* symbols_;
};

struct Frame {
  Symbols& symbols;
  Function* function;
  bool toplevel = false;
  bool soft = false;     // within an if: an unknown filter fails when it is met
  bool in_loop = false;  // break and continue are possible
};

class Resolver {
 public:
  void run(Program& program) {
    Function function{nullptr, 0};
    Symbols symbols(nullptr, &function);
    if (Undeclared(program.body, {"self"}).has("self")) {
      program.self = {0, symbols.declare("self").slot};
    }
    Analysis(symbols).visit_all(program.body);
    visit_all(program.body, {symbols, &function, true});
    program.scope = scope_of(symbols, function);
    program.slots = function.slots;
    for (Node* block : program.blocks) visit_block_body(*block);
  }

 private:
  static Place place(const Variable& v, const Function& from) {
    return {from.depth - v.function->depth, v.slot};
  }

  Place place_of(const std::string& name, const Frame& f, int line) const {
    const Variable* v = f.symbols.find(name);
    // Only an argument of a set block's filter can be left out by the analysis.
    if (v == nullptr) throw SyntaxError(line, "the name " + repr(name) + " is unknown here");
    return place(*v, *f.function);
  }

  static Scope scope_of(const Symbols& symbols, const Function& function) {
    Scope scope;
    for (const auto& [variable, loading] : symbols.loads()) {
      const Place at = place(variable, function);
      scope.cleared.push_back(at);
      if (loading.kind == Loading::Kind::kResolve) {
        scope.loads.push_back({Load::Kind::kResolve, at, {}, loading.name});
      } else if (loading.kind == Loading::Kind::kAlias) {
        scope.loads.push_back({Load::Kind::kAlias, at, place(loading.from, function), {}});
      } else if (loading.kind == Loading::Kind::kUndefined) {
        scope.loads.push_back({Load::Kind::kUndefined, at, {}, {}});
      }
    }
    return scope;
  }

  void visit_all(const Nodes& nodes, const Frame& f) {
    for (const NodePtr& n : nodes) visit(*n, f);
  }

  void visit(Node& n, const Frame& f) {
    switch (n.kind) {
      case Kind::kName:
      case Kind::kNsRef:
        n.place = place_of(n.name, f, n.line);
        return;
      case Kind::kCond: {
        Frame soft = f;
        soft.soft = true;
        for (const NodePtr& item : n.items) {
          if (item) visit(*item, soft);
        }
        return;
      }
      case Kind::kFilter:
      case Kind::kTest:
        n.function = n.kind == Kind::kFilter ? reinterpret_cast<void (*)()>(find_filter(n.name))
                                             : reinterpret_cast<void (*)()>(find_test(n.name));
        if (n.function == nullptr && !f.soft) {
          throw SyntaxError(n.line, std::string("No ") +
                                        (n.kind == Kind::kFilter ? "filter" : "test") + " named " +
                                        repr(n.name) + ".");
        }
        break;
      case Kind::kIf: {
        Frame soft = f;
        soft.soft = true;
        for (Node* part : children(n)) visit(*part, soft);
        return;
      }
      case Kind::kFor:
        return visit_for(n, f);
      case Kind::kMacro:
        visit_macro(n, f);
        n.place = place_of(n.name, f, n.line);
        n.exported = f.toplevel;
        return;
      case Kind::kCallBlock:
        visit_macro(n, f);
        if (n.target) visit(*n.target, f);
        return;
      case Kind::kFilterBlock:
      case Kind::kAutoescape:
      case Kind::kWith:
      case Kind::kAssignBlock:
        return visit_scoped(n, f);
      case Kind::kAssign:
        n.exported = f.toplevel;
        break;
      case Kind::kBlock:
        return visit_block(n, f);
      case Kind::kBreak:
      case Kind::kContinue:
        if (!f.in_loop) {
          throw SyntaxError(n.line, n.kind == Kind::kBreak ? "'break' outside loop"
                                                           : "'continue' not properly in loop");
        }
        return;
      default:
        break;
    }
    for (Node* part : children(n)) visit(*part, f);
  }

  // Statements with a scope within the same function.
  void visit_scoped(Node& n, const Frame& f) {
    Symbols symbols(&f.symbols, f.function);
    Analysis analysis(symbols);
    const Frame inner{symbols, f.function, false, false, f.in_loop};
    if (n.kind == Kind::kWith) {
      analysis.visit_all(n.parameters);
      analysis.visit_all(n.body);
      visit_all(n.items, f);
      visit_all(n.parameters, inner);
    } else if (n.kind == Kind::kAssignBlock) {
      analysis.visit_all(n.body);
      visit(*n.target, f);
      n.exported = f.toplevel;
    } else {
      if (n.kind == Kind::kAutoescape) analysis.visit_all(n.items);
      analysis.visit_all(n.body);
      if (n.kind == Kind::kFilterBlock) analysis.visit(*n.target);
    }
    visit_all(n.body, inner);
    if (n.kind == Kind::kFilterBlock) visit(*n.target, inner);
    if (n.kind == Kind::kAssignBlock && n.items[0]) visit(*n.items[0], inner);
    if (n.kind == Kind::kAutoescape) visit_all(n.items, inner);
    n.scope = scope_of(symbols, *f.function);
  }

  void visit_for(Node& n, const Frame& f) {
    if (any_node(n, [](const Node& part) {
          return part.kind == Kind::kName && part.stored && part.name == "loop";
        })) {
      throw SyntaxError(n.line, "Can't assign to special loop variable in for-loop target");
    }
    Function own{f.function, f.function->depth + 1};
    Function* function = n.recursive ? &own : f.function;
    Symbols loop(&f.symbols, function), test(&f.symbols, function), otherwise(&f.symbols, function);
    const bool extended =
        n.recursive || Undeclared(n.body, {"loop"}).has("loop") ||
        any_node(n, [](const Node& part) { return part.kind == Kind::kBlock && part.scoped; });
    if (extended) n.place = {0, loop.declare("loop").slot};
    Analysis body(loop);
    body.declare_target(*n.target);
    body.visit_all(n.body);
    if (!n.otherwise.empty()) Analysis(otherwise).visit_all(n.otherwise);

    const Frame loop_frame{loop, function, false, false, true};
    if (n.items[1]) {
      Analysis condition(test);
      condition.declare_target(*n.test_target);
      condition.visit(*n.items[1]);
      const Frame test_frame{test, function};
      visit(*n.test_target, test_frame);
      visit(*n.items[1], test_frame);
      n.test_scope = scope_of(test, *function);
    }
    visit(*n.items[0], f);
    visit(*n.target, loop_frame);
    visit_all(n.body, loop_frame);
    visit_all(n.otherwise, {otherwise, function, false, false, !n.recursive && f.in_loop});
    n.scope = scope_of(loop, *function);
    n.else_scope = scope_of(otherwise, *function);
    n.slots = own.slots;
  }

  // A macro or the body of a call block: a function of its own.
  void visit_macro(Node& n, const Frame& f) {
    Function function{f.function, f.function->depth + 1};
    Symbols symbols(&f.symbols, &function);
    const auto analyze = [&] {
      Analysis analysis(symbols);
      analysis.visit_all(n.parameters);
      analysis.visit_all(n.defaults);
      analysis.visit_all(n.body);
    };
    analyze();
    const Undeclared undeclared(n.body, {"caller", "kwargs", "varargs"});
    const auto parameter = [&n](const char* name) {
      const auto at = std::find_if(n.parameters.begin(), n.parameters.end(),
                                   [name](const NodePtr& p) { return p->name == name; });
      return at == n.parameters.end() ? -1 : static_cast<int>(at - n.parameters.begin());
    };
    if (undeclared.has("caller")) {
      const int explicit_caller = parameter("caller");
      if (explicit_caller < 0) {
        n.caller = {0, symbols.declare("caller").slot};
      } else if (n.parameters.size() - static_cast<size_t>(explicit_caller) > n.defaults.size()) {
        throw SyntaxError(
            n.line,
            "When defining macros or call blocks the special \"caller\" argument must "
            "be omitted or be given a default.");
      }
      n.scoped = true;  // it takes a caller
    }
    if (undeclared.has("kwargs") && parameter("kwargs") < 0) {
      n.kwargs = {0, symbols.declare("kwargs").slot};
    }
    if (undeclared.has("varargs") && parameter("varargs") < 0) {
      n.varargs = {0, symbols.declare("varargs").slot};
    }
    analyze();
    const Frame inner{symbols, &function};
    visit_all(n.parameters, inner);
    visit_all(n.defaults, inner);
    visit_all(n.body, inner);
    n.scope = scope_of(symbols, function);
    n.slots = function.slots;
  }

  void visit_block(Node& n, const Frame& f) {
    if (!n.scoped) return;
    std::set<std::string> names;
    for (const Symbols* s = &f.symbols; s != nullptr; s = s->parent()) {
      names.insert(s->stores().begin(), s->stores().end());
    }
    for (const std::string& name : names) n.visible.emplace_back(name, place_of(name, f, n.line));
  }

  void visit_block_body(Node& n) {
    Function function{nullptr, 0};
    Symbols symbols(nullptr, &function);
    const Undeclared undeclared(n.body, {"self", "super"});
    if (undeclared.has("self")) n.place = {0, symbols.declare("self").slot};
    if (undeclared.has("super")) n.caller = {0, symbols.declare("super").slot};
    Analysis(symbols).visit_all(n.body);
    visit_all(n.body, {symbols, &function});
    n.scope = scope_of(symbols, function);
    n.slots = function.slots;
  }
};

}  // namespace

void resolve_scopes(Program& program) { Resolver().run(program); }

}  // namespace llorch::tmpl
