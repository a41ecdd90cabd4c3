// Tokens to expressions, by jinja2's grammar: the part of the parser that knows no statement.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "template/ast.h"
#include "template/lexer.h"

namespace llorch::tmpl {

// Everything throws SyntaxError.
class ExpressionParser {
 protected:
  explicit ExpressionParser(std::string_view source) : tokens_(tokenize(source)) {}

  // One level of what nests by recursion.
  struct Deeper {
    explicit Deeper(ExpressionParser& p);
    ~Deeper() { --parser.depth_; }
    ExpressionParser& parser;
  };

  struct TupleRules {
    bool simple = false;  // names and literals only
    bool with_condition = true;
    std::string_view end = {};  // a name that ends it
    bool parentheses = false;
    bool with_namespace = false;
  };

  const Token& current() const;
  const Token& look() const;
  const Token& next();
  bool skip_if(std::string_view op);
  bool skip_if_name(std::string_view name);
  void expect(std::string_view op);
  std::string expect_name();
  void expect_end(TokenType type);
  static std::string describe(const Token& t);
  [[noreturn]] void fail(const std::string& what, int line = 0) const;
  [[noreturn]] void unexpected(const std::string& wanted) const;
  NodePtr make(Kind kind, int line);
  NodePtr make(Kind kind, int line, NodePtr a, NodePtr b);
  NodePtr constant(Value v, int line);
  NodePtr name_node(std::string name, int line);
  // An expression that is complete.
  NodePtr seal(NodePtr n) const;

  NodePtr parse_tuple(const TupleRules& rules);
  NodePtr parse_expression(bool with_condition = true);
  // `| filter | filter`, or from a filter's name if `begun`; null if there is none.
  NodePtr parse_filters(NodePtr n, bool begun);

 private:
  bool at_tuple_end(const TupleRules& rules) const;
  NodePtr parse_or();
  NodePtr parse_and();
  NodePtr parse_not();
  bool compare_operator(Compare& op);
  NodePtr parse_compare();
  NodePtr parse_math1();
  NodePtr parse_concat();
  NodePtr parse_math2();
  NodePtr parse_pow();
  NodePtr parse_unary(bool with_filter);
  NodePtr parse_primary(bool with_namespace);
  NodePtr parse_name(bool with_namespace);
  NodePtr parse_postfix(NodePtr n);
  NodePtr parse_filter_expression(NodePtr n);
  NodePtr parse_attribute(NodePtr target);
  NodePtr parse_subscript(NodePtr target);
  NodePtr parse_subscribed();
  void parse_arguments(Node& n);
  NodePtr parse_call(NodePtr target);
  std::string dotted_name();
  NodePtr parse_test(NodePtr target);

  // A chain of operators of one level, which nests to the left.
  template <class Operand>
  NodePtr left_chain(Operand operand,
                     std::initializer_list<std::pair<const char*, Kind>> operators);

  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int nodes_ = 0;
};

}  // namespace llorch::tmpl
