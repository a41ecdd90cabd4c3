// Python's arithmetic. Integers have 64 bits: what goes beyond is a Failure.
#include <cmath>

#include "template/budget.h"
#include "template/python_text.h"
#include "template/runtime.h"

namespace llorch::tmpl {
namespace {

const char* symbol(Op op) {
  switch (op) {
    case Op::kAdd:
      return "+";
    case Op::kSub:
      return "-";
    case Op::kMul:
      return "*";
    case Op::kDiv:
      return "/";
    case Op::kFloorDiv:
      return "//";
    case Op::kMod:
      return "%";
    case Op::kPow:
      return "** or pow()";
  }
  return "";
}

[[noreturn]] void unsupported(Op op, const Value& a, const Value& b) {
  throw Failure(std::string("unsupported operand type(s) for ") + symbol(op) + ": '" +
                type_name(a) + "' and '" + type_name(b) + "'");
}

[[noreturn]] void too_large() { throw Failure("an integer needs more than 64 bits"); }

int64_t floor_div(int64_t a, int64_t b) {
  if (a == INT64_MIN && b == -1) too_large();
  const int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

int64_t floor_mod(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

// Rounded once.
double true_div(int64_t a, int64_t b) {
  constexpr int64_t kExact = int64_t{1} << 53;
  if (a > -kExact && a < kExact && b > -kExact && b < kExact) {
    return static_cast<double>(a) / static_cast<double>(b);
  }
  return static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b));
}

double float_mod(double a, double b) {
  double r = std::fmod(a, b);
  if (r != 0) {
    if ((b < 0) != (r < 0)) r += b;
  } else {
    r = std::copysign(0.0, b);
  }
  return r;
}

double float_floor_div(double a, double b) {
  const double r = std::fmod(a, b);
  double q = (a - r) / b;
  if (r != 0 && (b < 0) != (r < 0)) q -= 1;
  if (q == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(q);
  return q - whole > 0.5 ? whole + 1 : whole;
}

Value power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) throw Failure("0.0 cannot be raised to a negative power");
    return Value::number(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  if (base == 1 || exponent == 0) return Value::integer(1);
  if (base == 0) return Value::integer(0);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) too_large();
  }
  return Value::integer(result);
}

Value integers(Op op, int64_t a, int64_t b) {
  int64_t r = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &r)) too_large();
      return Value::integer(r);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &r)) too_large();
      return Value::integer(r);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &r)) too_large();
      return Value::integer(r);
    case Op::kDiv:
      if (b == 0) throw Failure("division by zero");
      return Value::number(true_div(a, b));
    case Op::kFloorDiv:
      if (b == 0) throw Failure("integer division or modulo by zero");
      return Value::integer(floor_div(a, b));
    case Op::kMod:
      if (b == 0) throw Failure("integer modulo by zero");
      return Value::integer(floor_mod(a, b));
    case Op::kPow:
      return power(a, b);
  }
  return Value();
}

Value floats(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value::number(a + b);
    case Op::kSub:
      return Value::number(a - b);
    case Op::kMul:
      return Value::number(a * b);
    case Op::kDiv:
      if (b == 0) throw Failure("float division by zero");
      return Value::number(a / b);
    case Op::kFloorDiv:
      if (b == 0) throw Failure("float floor division by zero");
      return Value::number(float_floor_div(a, b));
    case Op::kMod:
      if (b == 0) throw Failure("float modulo");
      return Value::number(float_mod(a, b));
    case Op::kPow: {
      if (a == 0 && b < 0) throw Failure("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
        throw Failure("complex numbers are not supported");
      }
      const double r = std::pow(a, b);
      if (std::isinf(r) && std::isfinite(a) && std::isfinite(b)) {
        throw Failure("(34, 'Numerical result out of range')");
      }
      return Value::number(r);
    }
  }
  return Value();
}

Value repeat(const Value& v, int64_t times) {
  const auto n = static_cast<uint64_t>(times > 0 ? times : 0);
  const auto check = [n](uint64_t bytes, uint64_t elements) {
    if (bytes != 0 && n > UINT64_MAX / bytes) throw Failure("the template makes too much text");
    spend_bytes(bytes * n);
    spend_steps(elements * n / 8);
  };
  if (v.is_string()) {
    const std::string& text = v.text();
    check(text.size(), 0);
    std::string out;
    if (!text.empty()) {
      out.reserve(text.size() * n);
      for (uint64_t i = 0; i < n; ++i) out += text;
    }
    return Value::string(std::move(out), v.as_string().markup);
  }
  const auto& items = v.items();
  check(items.size() * sizeof(Value), items.size());
  std::vector<Value> out;
  if (!items.empty()) {
    out.reserve(items.size() * n);
    for (uint64_t i = 0; i < n; ++i) out.insert(out.end(), items.begin(), items.end());
  }
  return v.is(Type::kList) ? Value::list(std::move(out)) : Value::tuple(std::move(out));
}

Value concatenate(const Value& a, const Value& b) {
  if (a.is_string()) {
    const bool markup = a.as_string().markup || b.as_string().markup;
    const auto text = [markup](const Value& v) {
      return markup && !v.as_string().markup ? html_escaped(v.text()) : v.text();
    };
    spend_bytes(a.text().size() + b.text().size());
    return Value::string(markup ? text(a) + text(b) : a.text() + b.text(), markup);
  }
  spend_bytes((a.items().size() + b.items().size()) * sizeof(Value));
  spend_steps((a.items().size() + b.items().size()) / 8);
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Type::kList) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

}  // namespace

Value binary(Op op, const Value& a, const Value& b) {
  // A str's % comes before what the right side says; all else asks an undefined first.
  if (op == Op::kMod && a.is_string()) {
    return Value::string(percent_format(a.text(), b, a.as_string().markup), a.as_string().markup);
  }
  if (a.is_undefined()) throw Failure(a.text());
  if (b.is_undefined()) throw Failure(b.text());
  if (a.is_integer() && b.is_integer()) return integers(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return floats(op, a.as_double(), b.as_double());
  if (a.is(Type::kBigInt) || b.is(Type::kBigInt)) {
    if ((a.is_number() || a.is(Type::kBigInt)) && (b.is_number() || b.is(Type::kBigInt))) {
      too_large();
    }
  }
  if (op == Op::kAdd && a.type() == b.type() && (a.is_string() || a.is_sequence())) {
    return concatenate(a, b);
  }
  if (op == Op::kMul) {
    if ((a.is_string() || a.is_sequence()) && b.is_integer()) return repeat(a, b.as_int());
    if ((b.is_string() || b.is_sequence()) && a.is_integer()) return repeat(b, a.as_int());
  }
  unsupported(op, a, b);
}

Value negative(const Value& v) {
  if (v.is_undefined()) throw Failure(v.text());
  if (v.is(Type::kFloat)) return Value::number(-v.as_float());
  if (v.is(Type::kBigInt)) {
    const std::string& digits = v.text();
    return parse_integer(digits[0] == '-' ? digits.substr(1) : "-" + digits, 10);
  }
  if (!v.is_integer()) {
    throw Failure(std::string("bad operand type for unary -: '") + type_name(v) + "'");
  }
  if (v.as_int() == INT64_MIN) too_large();
  return Value::integer(-v.as_int());
}

Value positive(const Value& v) {
  if (v.is_undefined()) throw Failure(v.text());
  if (v.is(Type::kFloat) || v.is(Type::kBigInt)) return v;
  if (!v.is_integer()) {
    throw Failure(std::string("bad operand type for unary +: '") + type_name(v) + "'");
  }
  return Value::integer(v.as_int());
}

}  // namespace llorch::tmpl
