#include "template/parser.h"

#include <algorithm>
#include <array>
#include <set>

#include "template/lexer.h"
#include "template/python_text.h"

namespace llorch::tmpl {
namespace {

// What the nesting of a template may use of the stack.
constexpr int kMostNesting = 300;
constexpr int kMostHeight = 500;  // of an expression, for chains nest without recursion

using Type = Token::Type;
using Names = std::vector<std::string_view>;

struct Arguments {
  Nodes positional;
  std::vector<std::pair<std::string, NodePtr>> named;
  NodePtr more_args, more_named;
};

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Program run() {
    Program program;
    program.body = subparse({});
    program.blocks = std::move(blocks_);
    return program;
  }

 private:
  struct Deeper {
    explicit Deeper(Parser& p) : parser(p) {
      if (++parser.depth_ > kMostNesting) parser.fail("the template is nested too deeply");
    }
    ~Deeper() { --parser.depth_; }
    Parser& parser;
  };

  // ------------------------------------------------------------ tokens

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& t = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return t;
  }
  bool skip_if(std::string_view op) {
    if (!current().is(op)) return false;
    next();
    return true;
  }
  bool skip_if_name(std::string_view name) {
    if (!current().is_name(name)) return false;
    next();
    return true;
  }
  void expect(std::string_view op) {
    if (!skip_if(op)) unexpected(std::string(op));
  }
  std::string expect_name() {
    if (current().type != Type::kName) unexpected("name");
    return next().text;
  }
  void expect_end(Type type) {
    if (current().type != type) {
      unexpected(type == Type::kBlockEnd ? "end of statement block" : "end of print statement");
    }
    next();
  }

  static std::string describe(const Token& t) {
    switch (t.type) {
      case Type::kData:
        return "template data / text";
      case Type::kVariableBegin:
        return "begin of print statement";
      case Type::kVariableEnd:
        return "end of print statement";
      case Type::kBlockBegin:
        return "begin of statement block";
      case Type::kBlockEnd:
        return "end of statement block";
      case Type::kString:
        return "string";
      case Type::kEnd:
        return "end of template";
      default:
        return t.text;
    }
  }
  [[noreturn]] void fail(const std::string& what, int line = 0) const {
    throw SyntaxError(line == 0 ? current().line : line, what);
  }
  [[noreturn]] void unexpected(const std::string& wanted) const {
    if (current().type == Type::kEnd)
      fail("unexpected end of template, expected '" + wanted + "'.");
    fail("expected token '" + wanted + "', got '" + describe(current()) + "'");
  }

  NodePtr make(Kind kind, int line) {
    constexpr int kMostNodes = 200'000;
    if (++nodes_ > kMostNodes) fail("the template is too long");
    return std::make_unique<Node>(kind, line);
  }
  NodePtr make(Kind kind, int line, NodePtr a, NodePtr b) {
    NodePtr n = make(kind, line);
    n->items.push_back(std::move(a));
    n->items.push_back(std::move(b));
    return n;
  }
  NodePtr constant(Value v, int line) {
    NodePtr n = make(Kind::kConst, line);
    n->value = std::move(v);
    return n;
  }
  NodePtr name_node(std::string name, int line) {
    NodePtr n = make(Kind::kName, line);
    n->name = std::move(name);
    return n;
  }

  // An expression that is complete.
  NodePtr seal(NodePtr n) const {
    const auto count = [&n](const NodePtr& part) {
      if (part) n->height = std::max(n->height, part->height + 1);
    };
    count(n->target);
    for (const NodePtr& item : n->items) count(item);
    for (const auto& [name, value] : n->named) count(value);
    count(n->more_args);
    count(n->more_named);
    if (n->height > kMostHeight) fail("the template is nested too deeply", n->line);
    return n;
  }

  // ------------------------------------------------------------ statements

  Nodes subparse(const Names& ends) {
    const Deeper deeper(*this);
    Nodes body;
    NodePtr output;
    const auto add = [&](NodePtr n) {
      if (!output) output = make(Kind::kOutput, n->line);
      output->items.push_back(std::move(n));
    };
    const auto flush = [&] {
      if (output) body.push_back(std::move(output));
    };
    while (current().type != Type::kEnd) {
      const Token& t = current();
      if (t.type == Type::kData) {
        add(constant(Value::string(t.text), t.line));
        output->items.back()->data = true;
        next();
      } else if (t.type == Type::kVariableBegin) {
        next();
        add(parse_tuple({}));
        expect_end(Type::kVariableEnd);
      } else {
        flush();
        next();
        if (current().type == Type::kName &&
            std::find(ends.begin(), ends.end(), current().text) != ends.end()) {
          return body;
        }
        body.push_back(statement(ends));
        expect_end(Type::kBlockEnd);
      }
    }
    flush();
    return body;
  }

  // The block behind the tag that is being read, up to one of `ends`, which is then current.
  Nodes block(const Names& ends) {
    skip_if(":");
    expect_end(Type::kBlockEnd);
    Nodes body = subparse(ends);
    if (current().type == Type::kEnd) {
      fail("Unexpected end of template. Looking for '" + std::string(ends[0]) + "'.");
    }
    return body;
  }

  Nodes block_to(std::string_view end) {
    Nodes body = block({end});
    next();
    return body;
  }

  NodePtr statement(const Names& ends) {
    if (current().type != Type::kName) fail("tag name expected");
    const std::string tag = current().text;
    const int line = current().line;
    if (tag == "for") return parse_for();
    if (tag == "if") return parse_if();
    next();
    if (tag == "set") return parse_set(line);
    if (tag == "macro") return parse_macro(line);
    if (tag == "call") return parse_call_block(line);
    if (tag == "generation") {
      NodePtr n = make(Kind::kCallBlock, line);
      n->body = block_to("endgeneration");
      return n;
    }
    if (tag == "filter") {
      NodePtr n = make(Kind::kFilterBlock, line);
      n->target = parse_filters(nullptr, true);
      n->body = block_to("endfilter");
      return n;
    }
    if (tag == "with") return parse_with(line);
    if (tag == "print") return parse_print(line);
    if (tag == "block") return parse_block(line);
    if (tag == "autoescape") {
      NodePtr n = make(Kind::kAutoescape, line);
      n->items.push_back(parse_expression());
      n->body = block_to("endautoescape");
      return n;
    }
    if (tag == "break" || tag == "continue") {
      return make(tag == "break" ? Kind::kBreak : Kind::kContinue, line);
    }
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
      fail("'" + tag + "' is not supported: a chat template stands alone", line);
    }
    std::string what = "Encountered unknown tag " + quoted(tag) + ".";
    if (!ends.empty()) {
      what += " Looking for '" + std::string(ends[0]) + "'.";
    }
    fail(what, line);
  }

  NodePtr parse_set(int line) {
    NodePtr target = parse_target({}, true);
    if (skip_if("=")) {
      NodePtr n = make(Kind::kAssign, line);
      n->target = std::move(target);
      n->items.push_back(parse_tuple({}));
      return n;
    }
    NodePtr n = make(Kind::kAssignBlock, line);
    n->target = std::move(target);
    n->items.push_back(parse_filters(nullptr, false));
    n->body = block_to("endset");
    return n;
  }

  NodePtr copy_target(const Node& n) {
    NodePtr copy = make(n.kind, n.line);
    copy->name = n.name;
    copy->stored = n.stored;
    for (const NodePtr& item : n.items) copy->items.push_back(copy_target(*item));
    return copy;
  }

  NodePtr parse_for() {
    NodePtr n = make(Kind::kFor, next().line);
    n->target = parse_target({"in"}, false);
    if (!skip_if_name("in")) unexpected("in");
    n->items.push_back(parse_tuple({.with_condition = false, .end = "recursive"}));
    n->items.push_back(skip_if_name("if") ? parse_expression() : nullptr);
    if (n->items[1]) n->test_target = copy_target(*n->target);
    n->recursive = skip_if_name("recursive");
    n->body = block({"endfor", "else"});
    if (next().text == "else") n->otherwise = block_to("endfor");
    return n;
  }

  NodePtr parse_if() {
    NodePtr first = make(Kind::kIf, next().line);
    Node* n = first.get();
    while (true) {
      n->items.push_back(parse_tuple({.with_condition = false}));
      n->body = block({"elif", "else", "endif"});
      const Token& t = next();
      if (t.text == "elif") {
        first->elifs.push_back(make(Kind::kIf, current().line));
        n = first->elifs.back().get();
        continue;
      }
      if (t.text == "else") first->otherwise = block_to("endif");
      return first;
    }
  }

  void parse_signature(Node& n) {
    expect("(");
    while (!current().is(")")) {
      if (!n.parameters.empty()) expect(",");
      const int line = current().line;
      n.parameters.push_back(name_node(expect_name(), line));
      n.parameters.back()->parameter = true;
      check_assignable(n.parameters.back()->name, line);
      if (skip_if("=")) {
        n.defaults.push_back(parse_expression());
      } else if (!n.defaults.empty()) {
        fail("non-default argument follows default argument");
      }
    }
    expect(")");
    std::set<std::string> names;
    for (const NodePtr& p : n.parameters) {
      if (!names.insert(p->name).second) {
        fail("duplicate argument '" + p->name + "' in function definition", p->line);
      }
    }
  }

  NodePtr parse_macro(int line) {
    NodePtr n = make(Kind::kMacro, line);
    n->name = expect_name();
    check_assignable(n->name, line);
    parse_signature(*n);
    n->body = block_to("endmacro");
    return n;
  }

  NodePtr parse_call_block(int line) {
    NodePtr n = make(Kind::kCallBlock, line);
    if (current().is("(")) parse_signature(*n);
    n->target = parse_expression();
    if (n->target->kind != Kind::kCall) fail("expected call", line);
    n->body = block_to("endcall");
    return n;
  }

  NodePtr parse_with(int line) {
    NodePtr n = make(Kind::kWith, line);
    while (current().type != Type::kBlockEnd) {
      if (!n->parameters.empty()) expect(",");
      n->parameters.push_back(parse_target({}, false));
      mark_parameters(*n->parameters.back());
      expect("=");
      n->items.push_back(parse_expression());
    }
    n->body = block_to("endwith");
    return n;
  }

  NodePtr parse_print(int line) {
    NodePtr n = make(Kind::kOutput, line);
    while (current().type != Type::kBlockEnd) {
      if (!n->items.empty()) expect(",");
      n->items.push_back(parse_expression());
    }
    return n;
  }

  NodePtr parse_block(int line) {
    NodePtr n = make(Kind::kBlock, line);
    n->name = expect_name();
    n->scoped = skip_if_name("scoped");
    if (skip_if_name("required")) fail("a required block is not supported", line);
    for (const Node* other : blocks_) {
      if (other->name == n->name) fail("block " + quoted(n->name) + " defined twice", line);
    }
    blocks_.push_back(n.get());
    n->body = block_to("endblock");
    skip_if_name(n->name);
    return n;
  }

  // ------------------------------------------------------------ targets

  void check_assignable(const std::string& name, int line) const {
    static constexpr std::array kConstants = {"true", "false", "none", "True", "False", "None"};
    if (std::find(kConstants.begin(), kConstants.end(), name) != kConstants.end()) {
      fail("can't assign to 'name'", line);
    }
  }

  void check_target(Node& n) const {
    if (n.kind == Kind::kName) {
      n.stored = true;
      return check_assignable(n.name, n.line);
    }
    if (n.kind == Kind::kNsRef) return;
    if (n.kind != Kind::kTuple) fail("can't assign to this", n.line);
    for (const NodePtr& item : n.items) check_target(*item);
  }

  static void mark_parameters(Node& n) {
    n.stored = false;
    n.parameter = true;
    for (const NodePtr& item : n.items) mark_parameters(*item);
  }

  struct TupleRules {
    bool simple = false;  // names and literals only
    bool with_condition = true;
    std::string_view end = {};  // a name that ends it
    bool parentheses = false;
    bool with_namespace = false;
  };

  NodePtr parse_target(const Names& ends, bool with_namespace) {
    NodePtr n = parse_tuple({.simple = true,
                             .end = ends.empty() ? std::string_view() : ends[0],
                             .with_namespace = with_namespace});
    check_target(*n);
    return n;
  }

  // ------------------------------------------------------------ expressions

  bool at_tuple_end(const TupleRules& rules) const {
    const Token& t = current();
    return t.type == Type::kVariableEnd || t.type == Type::kBlockEnd || t.is(")") ||
           (!rules.end.empty() && t.is_name(rules.end));
  }

  NodePtr parse_tuple(const TupleRules& rules) {
    int line = current().line;
    Nodes items;
    bool is_tuple = false;
    while (true) {
      if (!items.empty()) expect(",");
      if (at_tuple_end(rules)) break;
      items.push_back(rules.simple ? parse_primary(rules.with_namespace)
                                   : parse_expression(rules.with_condition));
      if (!current().is(",")) break;
      is_tuple = true;
      line = current().line;
    }
    if (!is_tuple) {
      if (!items.empty()) return std::move(items[0]);
      if (!rules.parentheses) {
        fail("Expected an expression, got '" + describe(current()) + "'");
      }
    }
    NodePtr n = make(Kind::kTuple, line);
    n->items = std::move(items);
    return seal(std::move(n));
  }

  NodePtr parse_expression(bool with_condition = true) {
    const Deeper deeper(*this);
    if (!with_condition) return parse_or();
    int line = current().line;
    NodePtr value = parse_or();
    while (skip_if_name("if")) {
      NodePtr n = make(Kind::kCond, line);
      n->items.push_back(parse_or());
      n->items.push_back(std::move(value));
      n->items.push_back(skip_if_name("else") ? parse_expression() : nullptr);
      value = seal(std::move(n));
      line = current().line;
    }
    return value;
  }

  // A chain of operators of one level, which nests to the left.
  template <class Operand>
  NodePtr left_chain(Operand operand,
                     std::initializer_list<std::pair<const char*, Kind>> operators) {
    int line = current().line;
    NodePtr left = operand();
    while (true) {
      const auto* found = std::find_if(operators.begin(), operators.end(), [&](const auto& o) {
        return current().is(o.first) || current().is_name(o.first);
      });
      if (found == operators.end()) return left;
      next();
      left = seal(make(found->second, line, std::move(left), operand()));
      line = current().line;
    }
  }

  NodePtr parse_or() {
    return left_chain([this] { return parse_and(); }, {{"or", Kind::kOr}});
  }

  NodePtr parse_and() {
    return left_chain([this] { return parse_not(); }, {{"and", Kind::kAnd}});
  }

  NodePtr parse_not() {
    if (!current().is_name("not")) return parse_compare();
    const Deeper deeper(*this);
    NodePtr n = make(Kind::kNot, next().line);
    n->target = parse_not();
    return seal(std::move(n));
  }

  bool compare_operator(Compare& op) {
    static constexpr std::pair<const char*, Compare> kOperators[] = {
        {"==", Compare::kEq},   {"!=", Compare::kNe}, {"<", Compare::kLt},
        {"<=", Compare::kLtEq}, {">", Compare::kGt},  {">=", Compare::kGtEq}};
    for (const auto& [text, which] : kOperators) {
      if (skip_if(text)) {
        op = which;
        return true;
      }
    }
    if (skip_if_name("in")) {
      op = Compare::kIn;
      return true;
    }
    if (current().is_name("not") && look().is_name("in")) {
      next();
      next();
      op = Compare::kNotIn;
      return true;
    }
    return false;
  }

  NodePtr parse_compare() {
    NodePtr first = parse_math1();
    Compare op{};
    if (!compare_operator(op)) return first;
    NodePtr n = make(Kind::kCompare, first->line);
    n->items.push_back(std::move(first));
    do {
      n->operators.push_back(op);
      n->items.push_back(parse_math1());
    } while (compare_operator(op));
    return seal(std::move(n));
  }

  NodePtr parse_math1() {
    return left_chain([this] { return parse_concat(); }, {{"+", Kind::kAdd}, {"-", Kind::kSub}});
  }

  NodePtr parse_concat() {
    const int line = current().line;
    NodePtr first = parse_math2();
    if (!current().is("~")) return first;
    NodePtr n = make(Kind::kConcat, line);
    n->items.push_back(std::move(first));
    while (skip_if("~")) n->items.push_back(parse_math2());
    return seal(std::move(n));
  }

  NodePtr parse_math2() {
    return left_chain(
        [this] { return parse_pow(); },
        {{"*", Kind::kMul}, {"/", Kind::kDiv}, {"//", Kind::kFloorDiv}, {"%", Kind::kMod}});
  }

  NodePtr parse_pow() {
    return left_chain([this] { return parse_unary(true); }, {{"**", Kind::kPow}});
  }

  NodePtr parse_unary(bool with_filter) {
    const Deeper deeper(*this);
    NodePtr n;
    if (current().is("-") || current().is("+")) {
      const Token& sign = next();
      n = make(sign.text == "-" ? Kind::kNegative : Kind::kPositive, sign.line);
      n->target = parse_unary(false);
      n = seal(std::move(n));
    } else {
      n = parse_primary(false);
    }
    n = parse_postfix(std::move(n));
    return with_filter ? parse_filter_expression(std::move(n)) : std::move(n);
  }

  NodePtr parse_primary(bool with_namespace) {
    const Deeper deeper(*this);
    const Token& t = current();
    if (t.type == Type::kName) return parse_name(with_namespace);
    if (t.type == Type::kString) {
      std::string text;
      while (current().type == Type::kString) text += next().text;
      return constant(Value::string(std::move(text)), t.line);
    }
    if (t.type == Type::kNumber) {
      next();
      return constant(t.value, t.line);
    }
    if (skip_if("(")) {
      NodePtr n = parse_tuple({.parentheses = true});
      expect(")");
      return n;
    }
    if (skip_if("[")) {
      NodePtr n = make(Kind::kList, t.line);
      while (!current().is("]")) {
        if (!n->items.empty()) expect(",");
        if (current().is("]")) break;
        n->items.push_back(parse_expression());
      }
      expect("]");
      return seal(std::move(n));
    }
    if (skip_if("{")) {
      NodePtr n = make(Kind::kDict, t.line);
      while (!current().is("}")) {
        if (!n->items.empty()) expect(",");
        if (current().is("}")) break;
        n->items.push_back(parse_expression());
        expect(":");
        n->items.push_back(parse_expression());
      }
      expect("}");
      return seal(std::move(n));
    }
    fail("unexpected '" + describe(t) + "'");
  }

  NodePtr parse_name(bool with_namespace) {
    const Token& t = next();
    if (t.text == "true" || t.text == "True") return constant(Value::boolean(true), t.line);
    if (t.text == "false" || t.text == "False") return constant(Value::boolean(false), t.line);
    if (t.text == "none" || t.text == "None") return constant(Value::none(), t.line);
    if (with_namespace && skip_if(".")) {
      NodePtr n = make(Kind::kNsRef, t.line);
      n->name = t.text;
      n->attribute = expect_name();
      return n;
    }
    return name_node(t.text, t.line);
  }

  NodePtr parse_postfix(NodePtr n) {
    while (true) {
      if (current().is(".")) {
        n = seal(parse_attribute(std::move(n)));
      } else if (current().is("[")) {
        n = seal(parse_subscript(std::move(n)));
      } else if (current().is("(")) {
        n = seal(parse_call(std::move(n)));
      } else {
        return n;
      }
    }
  }

  NodePtr parse_filter_expression(NodePtr n) {
    while (true) {
      if (current().is("|")) {
        n = parse_filters(std::move(n), false);
      } else if (current().is_name("is")) {
        n = seal(parse_test(std::move(n)));
      } else if (current().is("(")) {
        n = seal(parse_call(std::move(n)));
      } else {
        return n;
      }
    }
  }

  NodePtr parse_attribute(NodePtr target) {
    const int line = next().line;
    const Token& t = next();
    if (t.type == Type::kName) {
      NodePtr n = make(Kind::kGetattr, line);
      n->target = std::move(target);
      n->name = t.text;
      return n;
    }
    if (t.type != Type::kNumber || t.text != "integer") fail("expected name or number", t.line);
    NodePtr n = make(Kind::kGetitem, line);
    n->target = std::move(target);
    n->items.push_back(constant(t.value, t.line));
    return n;
  }

  NodePtr parse_subscript(NodePtr target) {
    const int line = next().line;
    Nodes keys;
    while (!current().is("]")) {
      if (!keys.empty()) expect(",");
      keys.push_back(parse_subscribed());
    }
    expect("]");
    NodePtr n = make(Kind::kGetitem, line);
    n->target = std::move(target);
    if (keys.size() == 1) {
      n->items.push_back(std::move(keys[0]));
    } else {
      for (const NodePtr& key : keys) {
        if (key->kind == Kind::kSlice) fail("a slice among several keys is not supported", line);
      }
      NodePtr key = make(Kind::kTuple, line);
      key->items = std::move(keys);
      n->items.push_back(std::move(key));
    }
    return n;
  }

  NodePtr parse_subscribed() {
    const int line = current().line;
    NodePtr start;
    if (!skip_if(":")) {
      start = parse_expression();
      if (!skip_if(":")) return start;
    }
    NodePtr n = make(Kind::kSlice, line);
    n->items.push_back(std::move(start));
    const auto part = [this]() -> NodePtr {
      return current().is("]") || current().is(",") ? nullptr : parse_expression();
    };
    n->items.push_back(current().is(":") ? nullptr : part());
    n->items.push_back(skip_if(":") ? part() : nullptr);
    return n;
  }

  void parse_arguments(Node& n) {
    const int line = current().line;
    expect("(");
    const auto ensure = [&](bool ok) {
      if (!ok) fail("invalid syntax for function call expression", line);
    };
    bool comma = false;
    while (!current().is(")")) {
      if (comma) {
        expect(",");
        if (current().is(")")) break;
      }
      if (skip_if("*")) {
        ensure(!n.more_args && !n.more_named);
        n.more_args = parse_expression();
      } else if (skip_if("**")) {
        ensure(!n.more_named);
        n.more_named = parse_expression();
      } else if (current().type == Type::kName && look().is("=")) {
        ensure(!n.more_named);
        std::string name = next().text;
        next();
        for (const auto& [other, value] : n.named) {
          if (other == name) fail("keyword argument repeated: " + name);
        }
        n.named.emplace_back(std::move(name), parse_expression());
      } else {
        ensure(!n.more_args && !n.more_named && n.named.empty());
        n.items.push_back(parse_expression());
      }
      comma = true;
    }
    expect(")");
  }

  NodePtr parse_call(NodePtr target) {
    NodePtr n = make(Kind::kCall, current().line);
    n->target = std::move(target);
    parse_arguments(*n);
    return n;
  }

  std::string dotted_name() {
    std::string name = expect_name();
    while (skip_if(".")) name += "." + expect_name();
    return name;
  }

  // `| filter | filter`, or from a filter's name if `begun`; null if there is none.
  NodePtr parse_filters(NodePtr n, bool begun) {
    while (begun || current().is("|")) {
      if (!begun) next();
      begun = false;
      NodePtr filter = make(Kind::kFilter, current().line);
      filter->name = dotted_name();
      filter->target = std::move(n);
      if (current().is("(")) parse_arguments(*filter);
      n = seal(std::move(filter));
    }
    return n;
  }

  NodePtr parse_test(NodePtr target) {
    const int line = next().line;
    const bool negated = skip_if_name("not");
    NodePtr n = make(Kind::kTest, line);
    n->name = dotted_name();
    n->target = std::move(target);
    const Token& t = current();
    if (t.is("(")) {
      parse_arguments(*n);
    } else if ((t.type == Type::kName || t.type == Type::kString || t.type == Type::kNumber ||
                t.is("[") || t.is("{")) &&
               !t.is_name("else") && !t.is_name("or") && !t.is_name("and")) {
      if (t.is_name("is")) fail("You cannot chain multiple tests with is");
      n->items.push_back(parse_postfix(parse_primary(false)));
    }
    if (!negated) return n;
    NodePtr negation = make(Kind::kNot, line);
    negation->target = seal(std::move(n));
    return negation;
  }

  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int nodes_ = 0;
  std::vector<Node*> blocks_;
};

}  // namespace

Program parse(std::string_view source) {
  Program program = Parser(source).run();
  resolve_scopes(program);
  return program;
}

}  // namespace llorch::tmpl
