// What may follow "is".
#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

template <bool (*Holds)(const Value&)>
bool simple(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("test", arguments, {});
  return Holds(value);
}

bool defined(const Value& value) {
  return !value.is(Kind::undefined);
}
bool undefined(const Value& value) {
  return value.is(Kind::undefined);
}
bool none(const Value& value) {
  return value.is(Kind::none);
}
bool boolean(const Value& value) {
  return value.is(Kind::boolean);
}
bool is_true(const Value& value) {
  return value.is(Kind::boolean) && value.boolean();
}
bool is_false(const Value& value) {
  return value.is(Kind::boolean) && !value.boolean();
}
bool integer(const Value& value) {
  return value.is(Kind::integer);
}
bool real(const Value& value) {
  return value.is(Kind::real);
}
bool number(const Value& value) {
  return value.is_number();
}
bool string(const Value& value) {
  return value.is_string();
}
bool mapping(const Value& value) {
  return value.is(Kind::dict);
}
bool escaped(const Value& value) {
  return value.is_string() && value.text().markup;
}
bool callable(const Value& value) {
  // An undefined value has a __call__ (which fails), so Python calls it callable.
  return value.is(Kind::undefined) || (value.is(Kind::special) && value.special().callable());
}
bool sequence(const Value& value) {
  return value.is_string() || value.is_sequence() || value.is(Kind::dict) || value.is(Kind::range) ||
         value.is(Kind::undefined);
}

// str.islower() and str.isupper(): at least one cased character, and none of the other case.
bool all_of_case(const Value& value, bool upper) {
  const std::string text = value.is_string()           ? value.text().bytes
                           : value.is(Kind::undefined) ? ""
                                                       : representation(value);
  bool cased = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, i).value_or(0xFFFD);
    if (is_title(c) || (upper ? is_lower(c) : is_upper(c))) return false;
    cased = cased || (upper ? is_upper(c) : is_lower(c));
  }
  return cased;
}
bool lower(const Value& value) {
  return all_of_case(value, false);
}
bool upper(const Value& value) {
  return all_of_case(value, true);
}

bool leaves(Interpreter& interpreter, const Value& value, const Value& divisor, int64_t rest) {
  return equal(binary(interpreter.heap(), BinaryOperator::modulo, value, divisor), Value(rest));
}

bool odd(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("odd", arguments, {});
  return leaves(interpreter, value, Value(int64_t{2}), 1);
}

bool even(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("even", arguments, {});
  return leaves(interpreter, value, Value(int64_t{2}), 0);
}

bool divisible_by(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return leaves(interpreter, value, bound[0], 0);
}

bool same_as(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  if (value.kind() != bound[0].kind()) return false;
  switch (value.kind()) {
    case Kind::none:
      return true;
    case Kind::boolean:
    case Kind::integer:
      return value.integer() == bound[0].integer();
    case Kind::real:
      return value.real() == bound[0].real();
    default:
      return value.object() == bound[0].object();
  }
}

bool in(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("in", arguments, {"seq"}, 1);
  return contains(bound[0], value);
}

bool known_filter(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("filter", arguments, {});
  return value.is_string() && is_filter(value.text().bytes);
}

bool known_test(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("test", arguments, {});
  return value.is_string() && is_test(value.text().bytes);
}

template <bool Wanted>
bool equals(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("eq", arguments, {""}, 1);
  return equal(value, bound[0]) == Wanted;
}

template <Order order>
bool compares(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("comparison", arguments, {""}, 1);
  return ordered(value, bound[0], order);
}

constexpr Named<Test> kTests[] = {{"defined", simple<defined>},
                                  {"undefined", simple<undefined>},
                                  {"none", simple<none>},
                                  {"boolean", simple<boolean>},
                                  {"true", simple<is_true>},
                                  {"false", simple<is_false>},
                                  {"integer", simple<integer>},
                                  {"float", simple<real>},
                                  {"number", simple<number>},
                                  {"string", simple<string>},
                                  {"mapping", simple<mapping>},
                                  {"sequence", simple<sequence>},
                                  {"iterable", simple<is_iterable>},
                                  {"callable", simple<callable>},
                                  {"escaped", simple<escaped>},
                                  {"lower", simple<lower>},
                                  {"upper", simple<upper>},
                                  {"odd", odd},
                                  {"even", even},
                                  {"divisibleby", divisible_by},
                                  {"sameas", same_as},
                                  {"in", in},
                                  {"filter", known_filter},
                                  {"test", known_test},
                                  {"==", equals<true>},
                                  {"eq", equals<true>},
                                  {"equalto", equals<true>},
                                  {"!=", equals<false>},
                                  {"ne", equals<false>},
                                  {">", compares<Order::greater>},
                                  {"gt", compares<Order::greater>},
                                  {"greaterthan", compares<Order::greater>},
                                  {">=", compares<Order::greater_equal>},
                                  {"ge", compares<Order::greater_equal>},
                                  {"<", compares<Order::less>},
                                  {"lt", compares<Order::less>},
                                  {"lessthan", compares<Order::less>},
                                  {"<=", compares<Order::less_equal>},
                                  {"le", compares<Order::less_equal>}};

}  // namespace

std::span<const Named<Test>> tests() {
  return kTests;
}

}  // namespace qkv::jinja
