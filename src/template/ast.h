// A parsed template: statements and expressions as one kind of node. Names of variables are places
// in frames once resolve_scopes() has run.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "template/value.h"

namespace llorch::tmpl {

enum class Kind : uint8_t {
  // Expressions
  kConst,  // value
  kName,   // name: read, or written where it is a target
  kNsRef,  // name.attribute, a target only
  kTuple,  // items
  kList,   // items
  kDict,   // items: key, value, key, value
  kCond,   // items: test, then, otherwise or null
  kAnd,    // items: two
  kOr,
  kNot,  // target
  kNegative,
  kPositive,
  kAdd,  // items: two
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kConcat,   // items
  kCompare,  // items, and between each two an operator of `operators`
  kGetattr,  // target, name
  kGetitem,  // target, items: the key
  kSlice,    // items: start, stop, step, each may be null; a key of kGetitem only
  kCall,     // target, arguments
  kFilter,   // target (null: the text of a block), name, arguments
  kTest,     // target, name, arguments
  // Statements
  kOutput,       // items
  kFor,          // target, items: iterable and condition or null; body, otherwise; recursive
  kIf,           // items: test; body, elifs (each a kIf), otherwise
  kMacro,        // name, parameters, defaults, body
  kCallBlock,    // target: the call (null: generation); parameters, defaults, body
  kFilterBlock,  // target: the filter; body
  kWith,         // parameters, items: their values; body
  kAssign,       // target, items: the value
  kAssignBlock,  // target, items: the filter or null; body
  kBlock,        // name, body, scoped
  kAutoescape,   // items: the setting; body
  kBreak,
  kContinue,
};

enum class Compare : uint8_t { kEq, kNe, kLt, kLtEq, kGt, kGtEq, kIn, kNotIn };

struct Node;
using NodePtr = std::unique_ptr<Node>;
using Nodes = std::vector<NodePtr>;

// Where a variable lives: `hops` functions out, at `slot` there.
struct Place {
  int hops = -1;
  int slot = -1;
};

// What a scope does with a variable when it is entered.
struct Load {
  enum class Kind : uint8_t { kResolve, kAlias, kUndefined } kind;
  Place place;
  Place from;        // kAlias
  std::string name;  // kResolve
};

struct Scope {
  std::vector<Load> loads;
  std::vector<Place> cleared;  // on leaving
};

struct Node {
  Node(Kind k, int l) : kind(k), line(l) {}
  Kind kind;
  bool recursive = false, scoped = false;
  bool data = false;       // a kConst that stands outside of tags
  bool stored = false;     // a kName that is a target
  bool parameter = false;  // of a macro or with
  int line;
  int height = 1;  // of an expression
  std::string name, attribute;
  Value value;
  NodePtr target;
  Nodes items;
  std::vector<Compare> operators;
  std::vector<std::pair<std::string, NodePtr>> named;  // arguments
  NodePtr more_args, more_named;                       // *x, **x
  Nodes body, elifs, otherwise;
  NodePtr test_target;  // of a kFor with a condition, which has variables of its own
  Nodes parameters;     // kName
  Nodes defaults;       // of the last ones

  // Filled by resolve_scopes().
  Place place;            // kName, kNsRef, kMacro, and the loop, caller or self of others
  bool exported = false;  // an assignment at the top level, seen by blocks
  Scope scope, else_scope, test_scope;
  int slots = 0;                                       // of the function that this node begins
  Place caller, kwargs, varargs;                       // of a macro; slot -1: it has none
  std::vector<std::pair<std::string, Place>> visible;  // of a scoped block
  void (*function)() = nullptr;  // of kFilter and kTest: a Filter or Test (runtime.h)
};

struct Program {
  Nodes body;
  Scope scope;
  int slots = 0;
  Place self;
  std::vector<Node*> blocks;  // by the order in the source
};

}  // namespace llorch::tmpl
