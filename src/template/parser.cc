#include "template/parser.h"

#include <algorithm>
#include <array>
#include <set>

#include "template/expression_parser.h"
#include "template/python_text.h"

namespace llorch::tmpl {
namespace {

using Names = std::vector<std::string_view>;

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(source) {}

  Program run() {
    Program program;
    program.body = subparse({});
    program.blocks = std::move(blocks_);
    return program;
  }

 private:
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
    while (current().type != TokenType::kEnd) {
      const Token& t = current();
      if (t.type == TokenType::kData) {
        add(constant(Value::string(t.text), t.line));
        output->items.back()->data = true;
        next();
      } else if (t.type == TokenType::kVariableBegin) {
        next();
        add(parse_tuple({}));
        expect_end(TokenType::kVariableEnd);
      } else {
        flush();
        next();
        if (current().type == TokenType::kName &&
            std::find(ends.begin(), ends.end(), current().text) != ends.end()) {
          return body;
        }
        body.push_back(statement(ends));
        expect_end(TokenType::kBlockEnd);
      }
    }
    flush();
    return body;
  }

  // The block behind the tag that is being read, up to one of `ends`, which is then current.
  Nodes block(const Names& ends) {
    skip_if(":");
    expect_end(TokenType::kBlockEnd);
    Nodes body = subparse(ends);
    if (current().type == TokenType::kEnd) {
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
    if (current().type != TokenType::kName) fail("tag name expected");
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
    std::string what = "Encountered unknown tag " + repr(tag) + ".";
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
    for (const auto& [name, value] : n->target->named) {
      if (name == "caller") fail("keyword argument repeated: caller", line);
    }
    n->body = block_to("endcall");
    return n;
  }

  NodePtr parse_with(int line) {
    NodePtr n = make(Kind::kWith, line);
    while (current().type != TokenType::kBlockEnd) {
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
    while (current().type != TokenType::kBlockEnd) {
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
      if (other->name == n->name) fail("block " + repr(n->name) + " defined twice", line);
    }
    blocks_.push_back(n.get());
    n->body = block_to("endblock");
    skip_if_name(n->name);
    return n;
  }

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

  NodePtr parse_target(const Names& ends, bool with_namespace) {
    NodePtr n = parse_tuple({.simple = true,
                             .end = ends.empty() ? std::string_view() : ends[0],
                             .with_namespace = with_namespace});
    check_target(*n);
    return n;
  }

  std::vector<Node*> blocks_;
};

}  // namespace

Program parse(std::string_view source) {
  Program program = Parser(source).run();
  resolve_scopes(program);
  return program;
}

}  // namespace llorch::tmpl
