#include "template/expression_parser.h"

#include <algorithm>

namespace llorch::tmpl {
namespace {

// What the nesting of a template may use of the stack.
constexpr int kMostNesting = 300;
constexpr int kMostHeight = 500;  // of an expression, for chains nest without recursion

}  // namespace

ExpressionParser::Deeper::Deeper(ExpressionParser& p) : parser(p) {
  if (++parser.depth_ > kMostNesting) parser.fail("the template is nested too deeply");
}

const Token& ExpressionParser::current() const { return tokens_[at_]; }

const Token& ExpressionParser::look() const {
  return tokens_[std::min(at_ + 1, tokens_.size() - 1)];
}

const Token& ExpressionParser::next() {
  const Token& t = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return t;
}

bool ExpressionParser::skip_if(std::string_view op) {
  if (!current().is(op)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_if_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

void ExpressionParser::expect(std::string_view op) {
  if (!skip_if(op)) unexpected(std::string(op));
}

std::string ExpressionParser::expect_name() {
  if (current().type != TokenType::kName) unexpected("name");
  return next().text;
}

void ExpressionParser::expect_end(TokenType type) {
  if (current().type != type) {
    unexpected(type == TokenType::kBlockEnd ? "end of statement block" : "end of print statement");
  }
  next();
}

std::string ExpressionParser::describe(const Token& t) {
  switch (t.type) {
    case TokenType::kData:
      return "template data / text";
    case TokenType::kVariableBegin:
      return "begin of print statement";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "begin of statement block";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kString:
      return "string";
    case TokenType::kEnd:
      return "end of template";
    default:
      return t.text;
  }
}

void ExpressionParser::fail(const std::string& what, int line) const {
  throw SyntaxError(line == 0 ? current().line : line, what);
}

void ExpressionParser::unexpected(const std::string& wanted) const {
  if (current().type == TokenType::kEnd)
    fail("unexpected end of template, expected '" + wanted + "'.");
  fail("expected token '" + wanted + "', got '" + describe(current()) + "'");
}

NodePtr ExpressionParser::make(Kind kind, int line) {
  constexpr int kMostNodes = 200'000;
  if (++nodes_ > kMostNodes) fail("the template is too long");
  return std::make_unique<Node>(kind, line);
}

NodePtr ExpressionParser::make(Kind kind, int line, NodePtr a, NodePtr b) {
  NodePtr n = make(kind, line);
  n->items.push_back(std::move(a));
  n->items.push_back(std::move(b));
  return n;
}

NodePtr ExpressionParser::constant(Value v, int line) {
  NodePtr n = make(Kind::kConst, line);
  n->value = std::move(v);
  return n;
}

NodePtr ExpressionParser::name_node(std::string name, int line) {
  NodePtr n = make(Kind::kName, line);
  n->name = std::move(name);
  return n;
}

// An expression that is complete.
NodePtr ExpressionParser::seal(NodePtr n) const {
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

bool ExpressionParser::at_tuple_end(const TupleRules& rules) const {
  const Token& t = current();
  return t.type == TokenType::kVariableEnd || t.type == TokenType::kBlockEnd || t.is(")") ||
         (!rules.end.empty() && t.is_name(rules.end));
}

NodePtr ExpressionParser::parse_tuple(const TupleRules& rules) {
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

NodePtr ExpressionParser::parse_expression(bool with_condition) {
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

template <class Operand>
NodePtr ExpressionParser::left_chain(
    Operand operand, std::initializer_list<std::pair<const char*, Kind>> operators) {
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

NodePtr ExpressionParser::parse_or() {
  return left_chain([this] { return parse_and(); }, {{"or", Kind::kOr}});
}

NodePtr ExpressionParser::parse_and() {
  return left_chain([this] { return parse_not(); }, {{"and", Kind::kAnd}});
}

NodePtr ExpressionParser::parse_not() {
  if (!current().is_name("not")) return parse_compare();
  const Deeper deeper(*this);
  NodePtr n = make(Kind::kNot, next().line);
  n->target = parse_not();
  return seal(std::move(n));
}

bool ExpressionParser::compare_operator(Compare& op) {
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

NodePtr ExpressionParser::parse_compare() {
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

NodePtr ExpressionParser::parse_math1() {
  return left_chain([this] { return parse_concat(); }, {{"+", Kind::kAdd}, {"-", Kind::kSub}});
}

NodePtr ExpressionParser::parse_concat() {
  const int line = current().line;
  NodePtr first = parse_math2();
  if (!current().is("~")) return first;
  NodePtr n = make(Kind::kConcat, line);
  n->items.push_back(std::move(first));
  while (skip_if("~")) n->items.push_back(parse_math2());
  return seal(std::move(n));
}

NodePtr ExpressionParser::parse_math2() {
  return left_chain(
      [this] { return parse_pow(); },
      {{"*", Kind::kMul}, {"/", Kind::kDiv}, {"//", Kind::kFloorDiv}, {"%", Kind::kMod}});
}

NodePtr ExpressionParser::parse_pow() {
  return left_chain([this] { return parse_unary(true); }, {{"**", Kind::kPow}});
}

NodePtr ExpressionParser::parse_unary(bool with_filter) {
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

NodePtr ExpressionParser::parse_primary(bool with_namespace) {
  const Deeper deeper(*this);
  const Token& t = current();
  if (t.type == TokenType::kName) return parse_name(with_namespace);
  if (t.type == TokenType::kString) {
    std::string text;
    while (current().type == TokenType::kString) text += next().text;
    return constant(Value::string(std::move(text)), t.line);
  }
  if (t.type == TokenType::kNumber) {
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

NodePtr ExpressionParser::parse_name(bool with_namespace) {
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

NodePtr ExpressionParser::parse_postfix(NodePtr n) {
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

NodePtr ExpressionParser::parse_filter_expression(NodePtr n) {
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

NodePtr ExpressionParser::parse_attribute(NodePtr target) {
  const int line = next().line;
  const Token& t = next();
  if (t.type == TokenType::kName) {
    NodePtr n = make(Kind::kGetattr, line);
    n->target = std::move(target);
    n->name = t.text;
    return n;
  }
  if (t.type != TokenType::kNumber || t.text != "integer") fail("expected name or number", t.line);
  NodePtr n = make(Kind::kGetitem, line);
  n->target = std::move(target);
  n->items.push_back(constant(t.value, t.line));
  return n;
}

NodePtr ExpressionParser::parse_subscript(NodePtr target) {
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

NodePtr ExpressionParser::parse_subscribed() {
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

void ExpressionParser::parse_arguments(Node& n) {
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
    } else if (current().type == TokenType::kName && look().is("=")) {
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

NodePtr ExpressionParser::parse_call(NodePtr target) {
  NodePtr n = make(Kind::kCall, current().line);
  n->target = std::move(target);
  parse_arguments(*n);
  return n;
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_if(".")) name += "." + expect_name();
  return name;
}

// `| filter | filter`, or from a filter's name if `begun`; null if there is none.
NodePtr ExpressionParser::parse_filters(NodePtr n, bool begun) {
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

NodePtr ExpressionParser::parse_test(NodePtr target) {
  const int line = next().line;
  const bool negated = skip_if_name("not");
  NodePtr n = make(Kind::kTest, line);
  n->name = dotted_name();
  n->target = std::move(target);
  const Token& t = current();
  if (t.is("(")) {
    parse_arguments(*n);
  } else if ((t.type == TokenType::kName || t.type == TokenType::kString ||
              t.type == TokenType::kNumber || t.is("[") || t.is("{")) &&
             !t.is_name("else") && !t.is_name("or") && !t.is_name("and")) {
    if (t.is_name("is")) fail("You cannot chain multiple tests with is");
    n->items.push_back(parse_postfix(parse_primary(false)));
  }
  if (!negated) return n;
  NodePtr negation = make(Kind::kNot, line);
  negation->target = seal(std::move(n));
  return negation;
}

}  // namespace llorch::tmpl
