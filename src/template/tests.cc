// The tests of `is`.
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

int64_t remainder(const Value& v, int64_t by) {
  const Value r = binary(Op::kMod, v, Value::integer(by));
  return r.is_integer() ? r.as_int() : r.as_double() == 0 ? 0 : r.as_double() == 1 ? 1 : 2;
}

void no_arguments(const Args& args) { const Params p("test", args, {}); }

const Value& other(const Args& args) {
  const Params p("test", args, {"/other"}, 1);
  return p[0];
}

template <int64_t Rest>
bool parity(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  if (v.is_string()) {
    // `%` formats a text, and the result is no number.
    percent_format(v.text(), Value::integer(2), false);
    return false;
  }
  return remainder(v, 2) == Rest;
}

bool divisibleby(Env&, const Value& v, const Args& args) {
  const Params p("divisibleby", args, {"num"}, 1);
  const Value r = binary(Op::kMod, v, p[0]);
  return r.is_number() && r.as_double() == 0;
}

template <Type... Types>
bool of_type(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  return (v.is(Types) || ...);
}

bool defined(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  return !v.is_undefined();
}

template <bool Which>
bool is_constant(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  return v.is(Type::kBool) && v.as_bool() == Which;
}

bool filter_exists(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  check_hashable(v);
  return v.is_string() && find_filter(v.text()) != nullptr;
}

bool test_exists(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  check_hashable(v);
  return v.is_string() && find_test(v.text()) != nullptr;
}

template <bool Upper>
bool is_case(Env& env, const Value& v, const Args& args) {
  no_arguments(args);
  const Value text = Value::string(to_text(v));
  return truthy(find_string_method(Upper ? "isupper" : "islower")(env, text, Args()));
}

bool number(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  return v.is_number() || v.is(Type::kBigInt);
}

bool sequence(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  switch (v.type()) {
    case Type::kString:
    case Type::kList:
    case Type::kTuple:
    case Type::kDict:
    case Type::kRange:
      return true;
    case Type::kUndefined:
      return true;  // it has both len() and __getitem__
    default:
      return false;
  }
}

bool iterable(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  return is_iterable(v);
}

bool callable(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  switch (v.type()) {
    case Type::kFunction:
    case Type::kMacro:
    case Type::kLoop:
    case Type::kUndefined:  // calling it is what raises
      return true;
    case Type::kObject:
      return std::string_view(v.as<Thing>().kind()) == "joiner";
    default:
      return false;
  }
}

bool sameas(Env&, const Value& v, const Args& args) {
  const Params p("sameas", args, {"other"}, 1);
  const Value& o = p[0];
  if (v.type() != o.type()) return false;
  switch (v.type()) {
    case Type::kNone:
      return true;
    case Type::kBool:
    case Type::kInt:
      return v.as_int() == o.as_int();
    case Type::kFloat:
      return v.as_float() == o.as_float();
    case Type::kString:
      return v.object() == o.object() || v.text() == o.text();
    default:
      return v.object() == o.object();
  }
}

bool escaped(Env&, const Value& v, const Args& args) {
  no_arguments(args);
  return v.is_string() && v.as_string().markup;
}

bool in(Env&, const Value& v, const Args& args) {
  const Params p("in", args, {"seq"}, 1);
  return contains(p[0], v);
}

bool eq(Env&, const Value& v, const Args& args) { return equal(v, other(args)); }
bool ne(Env&, const Value& v, const Args& args) { return !equal(v, other(args)); }
bool lt(Env&, const Value& v, const Args& args) { return less(v, other(args)); }
bool le(Env&, const Value& v, const Args& args) { return less(v, other(args), true); }
bool gt(Env&, const Value& v, const Args& args) { return less(other(args), v); }
bool ge(Env&, const Value& v, const Args& args) { return less(other(args), v, true); }

struct Entry {
  std::string_view name;
  Test test;
};

constexpr Entry kTests[] = {
    {"odd", parity<1>},
    {"even", parity<0>},
    {"divisibleby", divisibleby},
    {"defined", defined},
    {"undefined", of_type<Type::kUndefined>},
    {"filter", filter_exists},
    {"test", test_exists},
    {"none", of_type<Type::kNone>},
    {"boolean", of_type<Type::kBool>},
    {"false", is_constant<false>},
    {"true", is_constant<true>},
    {"integer", of_type<Type::kInt, Type::kBigInt>},
    {"float", of_type<Type::kFloat>},
    {"lower", is_case<false>},
    {"upper", is_case<true>},
    {"string", of_type<Type::kString>},
    {"mapping", of_type<Type::kDict>},
    {"number", number},
    {"sequence", sequence},
    {"iterable", iterable},
    {"callable", callable},
    {"sameas", sameas},
    {"escaped", escaped},
    {"in", in},
    {"==", eq},
    {"eq", eq},
    {"equalto", eq},
    {"!=", ne},
    {"ne", ne},
    {">", gt},
    {"gt", gt},
    {"greaterthan", gt},
    {"ge", ge},
    {">=", ge},
    {"<", lt},
    {"lt", lt},
    {"lessthan", lt},
    {"<=", le},
    {"le", le},
};

}  // namespace

Test find_test(std::string_view name) {
  for (const Entry& e : kTests) {
    if (e.name == name) return e.test;
  }
  return nullptr;
}

}  // namespace llorch::tmpl
