// + - * / // % **, as Python's numbers, strings and lists have them. Integers are 64 bits: what would need
// more is an error, never a wrong number.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "qkv/text/jinja/format.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

std::string_view symbol(BinaryOperator op) {
  switch (op) {
    case BinaryOperator::add:
      return "+";
    case BinaryOperator::subtract:
      return "-";
    case BinaryOperator::multiply:
      return "*";
    case BinaryOperator::divide:
      return "/";
    case BinaryOperator::floor_divide:
      return "//";
    case BinaryOperator::modulo:
      return "%";
    case BinaryOperator::power:
      return "** or pow()";
  }
  return "";
}

[[noreturn]] void overflow() {
  fail_as(FailureKind::limit, "an integer needs more than 64 bits");
}

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double floor_divide(double a, double b) {
  const double rest = modulo(a, b);
  const double quotient = (a - rest) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value power(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral() && b.integer() >= 0) {
    int64_t result = 1, base = a.integer();
    for (uint64_t exponent = static_cast<uint64_t>(b.integer()); exponent != 0; exponent >>= 1) {
      if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow();
      if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) overflow();
    }
    return result;
  }
  const double base = a.to_double(), exponent = b.to_double();
  if (base == 0 && exponent < 0) value_error("0.0 cannot be raised to a negative power");
  const double result = std::pow(base, exponent);
  if (std::isnan(result) && !std::isnan(base) && !std::isnan(exponent))
    fail_as(FailureKind::unsupported, "a power of a negative number gives a complex number");
  if (std::isinf(result) && !std::isinf(base) && !std::isinf(exponent))
    value_error("a power is too large for a float");
  return result;
}

Value integers(BinaryOperator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOperator::add:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOperator::subtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOperator::multiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOperator::divide:
      if (b == 0) value_error("division by zero");
      return static_cast<double>(a) / static_cast<double>(b);
    case BinaryOperator::floor_divide:
      if (b == 0) value_error("integer division or modulo by zero");
      if (a == INT64_MIN && b == -1) overflow();
      return floor_divide(a, b);
    case BinaryOperator::modulo:
      if (b == 0) value_error("integer modulo by zero");
      return modulo(a, b);
    case BinaryOperator::power:
      break;
  }
  return power(Value(a), Value(b));
}

Value numbers(BinaryOperator op, const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) return integers(op, left.integer(), right.integer());
  const double a = left.to_double(), b = right.to_double();
  switch (op) {
    case BinaryOperator::add:
      return a + b;
    case BinaryOperator::subtract:
      return a - b;
    case BinaryOperator::multiply:
      return a * b;
    case BinaryOperator::divide:
      if (b == 0) value_error("float division by zero");
      return a / b;
    case BinaryOperator::floor_divide:
      if (b == 0) value_error("float floor division by zero");
      return floor_divide(a, b);
    case BinaryOperator::modulo:
      if (b == 0) value_error("float modulo");
      return modulo(a, b);
    case BinaryOperator::power:
      break;
  }
  return power(left, right);
}

Value concatenate(Heap& heap, const Text& a, const Text& b) {
  TextBuilder out(heap.budget());
  // Markup escapes what joins it.
  const bool markup = a.markup || b.markup;
  const auto append = [&](const Text& text) {
    if (markup && !text.markup) {
      append_escaped(out, text);
    } else {
      out.append(text);
    }
  };
  append(a);
  append(b);
  return out.finish(markup);
}

Value repeat(Heap& heap, const Value& sequence, int64_t count) {
  if (sequence.is_string()) {
    const Text& text = sequence.text();
    TextBuilder out(heap.budget());
    if (text.marks.empty()) {
      out.repeat(text.bytes, count < 0 ? 0 : static_cast<uint64_t>(count));
    } else {
      for (int64_t i = 0; i < count; ++i) {
        heap.budget().step();
        out.append(text);
      }
    }
    return out.finish(text.markup);
  }
  const auto& once = sequence.items();
  std::vector<Value> items;
  if (count > 0 && !once.empty()) {
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(static_cast<uint64_t>(count), once.size() * sizeof(Value), &bytes))
      bytes = UINT64_MAX;
    heap.budget().allocate(bytes);
    items.reserve(once.size() * static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) items.insert(items.end(), once.begin(), once.end());
  }
  return sequence.is(Kind::list) ? heap.list(std::move(items)) : heap.tuple(std::move(items));
}

Value join_sequences(Heap& heap, const Value& a, const Value& b) {
  heap.budget().allocate((a.items().size() + b.items().size()) * sizeof(Value));
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Kind::list) ? heap.list(std::move(items)) : heap.tuple(std::move(items));
}

}  // namespace

Value binary(Heap& heap, BinaryOperator op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return numbers(op, a, b);
  if (op == BinaryOperator::modulo && a.is_string()) return format_percent(heap, a.text(), b);
  if (a.is(Kind::undefined)) a.fail_undefined();
  if (b.is(Kind::undefined)) b.fail_undefined();
  if (op == BinaryOperator::add) {
    if (a.is_string() && b.is_string()) return concatenate(heap, a.text(), b.text());
    if (a.is_sequence() && a.kind() == b.kind()) return join_sequences(heap, a, b);
    if (a.is_string() || a.is_sequence()) {
      const std::string_view name = a.is_string() ? "str" : type_name(a);
      if (!b.is_number() || !a.is_string())
        type_error("can only concatenate {} (not \"{}\") to {}", name, type_name(b), name);
      type_error("can only concatenate str (not \"{}\") to str", type_name(b));
    }
  }
  if (op == BinaryOperator::multiply) {
    if ((a.is_string() || a.is_sequence()) && b.is_integral()) return repeat(heap, a, b.integer());
    if ((b.is_string() || b.is_sequence()) && a.is_integral()) return repeat(heap, b, a.integer());
  }
  type_error("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(a), type_name(b));
}

Value negative(const Value& value) {
  if (value.is_integral()) {
    if (value.integer() == INT64_MIN) overflow();
    return -value.integer();
  }
  if (value.is(Kind::real)) return -value.real();
  if (value.is(Kind::undefined)) value.fail_undefined();
  type_error("bad operand type for unary -: '{}'", type_name(value));
}

Value positive(const Value& value) {
  if (value.is_integral()) return value.integer();
  if (value.is(Kind::real)) return value;
  if (value.is(Kind::undefined)) value.fail_undefined();
  type_error("bad operand type for unary +: '{}'", type_name(value));
}

Value round_number(const Value& value, int64_t digits) {
  if (value.is_integral()) {
    if (digits >= 0) return value.integer();
    if (digits < -18) return int64_t{0};
    int64_t unit = 1;
    for (int64_t i = 0; i < -digits; ++i) unit *= 10;
    const int64_t rest = modulo(value.integer(), unit), below = value.integer() - rest;
    const bool odd = modulo(below / unit, int64_t{2}) != 0;
    const bool up = rest > unit / 2 || (rest == unit / 2 && odd);
    int64_t result = below;
    if (up && __builtin_add_overflow(below, unit, &result)) overflow();
    return result;
  }
  if (value.is(Kind::undefined)) value.fail_undefined();
  if (!value.is(Kind::real)) type_error("type {} doesn't define __round__ method", type_name(value));
  const double real = value.real();
  if (!std::isfinite(real) || digits > 323) return real;
  if (digits < -308) return std::copysign(0.0, real);
  if (digits >= 0) {
    // The decimal expansion is exact, so that printf's rounding is Python's.
    char buffer[700];
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), real);
    return std::strtod(buffer, nullptr);
  }
  const long double unit = std::pow(10.0L, static_cast<long double>(-digits));
  return static_cast<double>(std::nearbyint(static_cast<long double>(real) / unit) * unit);
}

}  // namespace qkv::jinja
