// Expressions.
#include "qkv/text/jinja/depth.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

// Attributes of Python's own machinery, which the sandbox hides.
bool is_internal(std::string_view name) {
  return name.size() > 4 && name.starts_with("__") && name.ends_with("__");
}

Value unsafe(const Value& value, std::string_view name) {
  return Value::undefined(
      fmt::format("access to attribute {} of '{}' object is unsafe.", quoted(name), type_name(value)),
      FailureKind::attribute);
}

Value no_attribute(const Value& value, std::string_view name) {
  return Value::undefined(fmt::format("'{}' has no attribute {}", object_name(value), quoted(name)));
}

}  // namespace

// ---- attributes, items, calls ----

std::optional<Value> Interpreter::own_attribute(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::undefined:
      value.fail_undefined();
    case Kind::name_space: {
      const Value* found = value.name_space().find(name);
      if (found == nullptr) return std::nullopt;
      return *found;
    }
    case Kind::special:
      return value.special().attribute(*this, name);
    case Kind::tuple:
      if (value.sequence().group && name == "grouper") return value.items()[0];
      if (value.sequence().group && name == "list") return value.items()[1];
      break;
    default:
      break;
  }
  if (is_internal(name)) return unsafe(value, name);
  auto method = find_method(heap_, value, name);
  if (method && is_mutating_method(value.kind(), name)) return unsafe(value, name);
  return method;
}

Value Interpreter::attribute(const Value& value, std::string_view name) {
  if (value.is(Kind::dict) && is_internal(name)) {
    if (const Value* found = value.dict().find(name)) return *found;
  }
  if (auto found = own_attribute(value, name)) return *std::move(found);
  if (value.is(Kind::dict)) {
    if (const Value* found = value.dict().find(name)) return *found;
  }
  return no_attribute(value, name);
}

Value Interpreter::item(const Value& value, const Value& key) {
  if (auto found = find_item(heap_, value, key)) return *std::move(found);
  if (key.is_string()) {
    if (auto found = own_attribute(value, key.text().bytes)) return *std::move(found);
    return no_attribute(value, key.text().bytes);
  }
  return Value::undefined(fmt::format("{} has no element {}", object_name(value), representation(key)));
}

Value Interpreter::call(const Value& callee, CallArguments& arguments) {
  if (callee.is(Kind::special)) return callee.special().call(*this, arguments);
  if (callee.is(Kind::undefined)) callee.fail_undefined();
  type_error("'{}' object is not callable", type_name(callee));
}

// ---- expressions ----

Value Interpreter::evaluate(const Expression& expression, const ScopePtr& scope) {
  if (expression.kind == ExpressionKind::constant) return expression.constant;
  const Depth depth(*this);
  line_ = expression.line;
  budget().step();
  switch (expression.kind) {
    case ExpressionKind::constant:
      break;
    case ExpressionKind::name:
      return evaluate_name(expression, scope);
    case ExpressionKind::list:
    case ExpressionKind::tuple:
      return evaluate_items(expression, scope);
    case ExpressionKind::dict:
      return evaluate_dict(expression, scope);
    case ExpressionKind::negative:
      return negative(evaluate(*expression.parts[0], scope));
    case ExpressionKind::positive:
      return positive(evaluate(*expression.parts[0], scope));
    case ExpressionKind::logical_not:
      return Value(!truth(evaluate(*expression.parts[0], scope)));
    case ExpressionKind::logical_and: {
      Value left = evaluate(*expression.parts[0], scope);
      return truth(left) ? evaluate(*expression.parts[1], scope) : left;
    }
    case ExpressionKind::logical_or: {
      Value left = evaluate(*expression.parts[0], scope);
      return truth(left) ? left : evaluate(*expression.parts[1], scope);
    }
    case ExpressionKind::binary:
      return evaluate_binary(expression, scope);
    case ExpressionKind::concatenate:
      return evaluate_concatenation(expression, scope);
    case ExpressionKind::compare:
      return evaluate_comparison(expression, scope);
    case ExpressionKind::conditional:
      return evaluate_conditional(expression, scope);
    case ExpressionKind::attribute:
    case ExpressionKind::item:
    case ExpressionKind::slice:
      return evaluate_subscript(expression, scope);
    case ExpressionKind::call:
      return evaluate_call(expression, scope, nullptr);
    case ExpressionKind::filter:
      return evaluate_filter(expression, scope);
    case ExpressionKind::test:
      return evaluate_test(expression, scope);
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& expression, const ScopePtr& scope) {
  Value value = expression.variable.slot < 0 ? variable(expression.text) : slot(*scope, expression.variable);
  if (value.is(Kind::missing))
    return Value::undefined(fmt::format("{} is undefined", quoted(expression.text)));
  return value;
}

Value Interpreter::evaluate_items(const Expression& expression, const ScopePtr& scope) {
  std::vector<Value> items;
  items.reserve(expression.parts.size());
  for (const auto& part : expression.parts) items.push_back(evaluate(*part, scope));
  return expression.kind == ExpressionKind::list ? heap_.list(std::move(items))
                                                 : heap_.tuple(std::move(items));
}

Value Interpreter::evaluate_dict(const Expression& expression, const ScopePtr& scope) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expression.parts.size(); i += 2) {
    Value key = evaluate(*expression.parts[i], scope);
    Value value = evaluate(*expression.parts[i + 1], scope);
    dict->set(std::move(key), std::move(value));
  }
  return heap_.dict(std::move(dict));
}

Value Interpreter::evaluate_binary(const Expression& expression, const ScopePtr& scope) {
  const Value left = evaluate(*expression.parts[0], scope);
  const Value right = evaluate(*expression.parts[1], scope);
  line_ = expression.line;
  return binary(heap_, expression.op, left, right);
}

Value Interpreter::evaluate_concatenation(const Expression& expression, const ScopePtr& scope) {
  TextBuilder out(budget());
  for (const auto& part : expression.parts) append_text(out, evaluate(*part, scope));
  return out.finish();
}

Value Interpreter::evaluate_comparison(const Expression& expression, const ScopePtr& scope) {
  Value left = evaluate(*expression.parts[0], scope);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1], scope);
    line_ = expression.line;
    bool holds = false;
    switch (expression.comparisons[i]) {
      case Comparison::equal:
        holds = equal(left, right);
        break;
      case Comparison::not_equal:
        holds = !equal(left, right);
        break;
      case Comparison::less:
        holds = ordered(left, right, Order::less);
        break;
      case Comparison::less_equal:
        holds = ordered(left, right, Order::less_equal);
        break;
      case Comparison::greater:
        holds = ordered(left, right, Order::greater);
        break;
      case Comparison::greater_equal:
        holds = ordered(left, right, Order::greater_equal);
        break;
      case Comparison::in:
        holds = contains(right, left);
        break;
      case Comparison::not_in:
        holds = !contains(right, left);
        break;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_conditional(const Expression& expression, const ScopePtr& scope) {
  if (truth(evaluate(*expression.parts[0], scope))) return evaluate(*expression.parts[1], scope);
  if (expression.parts[2]) return evaluate(*expression.parts[2], scope);
  return Value::undefined(
      fmt::format("the inline if-expression on line {} evaluated to false and no else section was defined.",
                  expression.line));
}

Value Interpreter::evaluate_subscript(const Expression& expression, const ScopePtr& scope) {
  const Value value = evaluate(*expression.parts[0], scope);
  if (expression.kind == ExpressionKind::attribute) {
    line_ = expression.line;
    return attribute(value, expression.text);
  }
  if (expression.kind == ExpressionKind::item) {
    const Value key = evaluate(*expression.parts[1], scope);
    line_ = expression.line;
    return item(value, key);
  }
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expression.parts[i + 1]) bounds[i] = evaluate(*expression.parts[i + 1], scope);
  }
  line_ = expression.line;
  return slice(heap_, value, bounds[0], bounds[1], bounds[2]);
}

CallArguments Interpreter::evaluate_arguments(const Expression& expression, const ScopePtr& scope) {
  CallArguments result;
  const auto add_named = [&](std::string name, Value value) {
    for (const auto& [existing, ignored] : result.named) {
      if (existing == name) type_error("got multiple values for keyword argument {}", quoted(name));
    }
    result.named.emplace_back(std::move(name), std::move(value));
  };
  for (const Argument& argument : expression.arguments) {
    Value value = evaluate(*argument.value, scope);
    switch (argument.kind) {
      case Argument::Kind::positional:
        result.positional.push_back(std::move(value));
        break;
      case Argument::Kind::named:
        add_named(argument.name, std::move(value));
        break;
      case Argument::Kind::spread:
        for (Value& item : to_vector(heap_, value)) result.positional.push_back(std::move(item));
        break;
      case Argument::Kind::spread_named:
        if (!value.is(Kind::dict))
          type_error("argument after ** must be a mapping, not {}", type_name(value));
        for (const auto& [key, item] : value.dict().entries()) {
          budget().step();
          add_named(std::string(expect_text(key, "a keyword").bytes), item);
        }
        break;
    }
  }
  return result;
}

Value Interpreter::evaluate_call(const Expression& expression, const ScopePtr& scope, const Value* caller) {
  const Value callee = evaluate(*expression.parts[0], scope);
  CallArguments arguments = evaluate_arguments(expression, scope);
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  line_ = expression.line;
  return call(callee, arguments);
}

Value Interpreter::evaluate_filter(const Expression& expression, const ScopePtr& scope) {
  const Value value = expression.parts[0] ? evaluate(*expression.parts[0], scope) : block_text_;
  CallArguments arguments = evaluate_arguments(expression, scope);
  line_ = expression.line;
  return apply_filter(*this, expression.text, value, arguments);
}

Value Interpreter::filter_text(const Expression& filters, Value text, const ScopePtr& scope) {
  std::swap(block_text_, text);
  Value result = evaluate(filters, scope);
  std::swap(block_text_, text);
  return result;
}

Value Interpreter::evaluate_test(const Expression& expression, const ScopePtr& scope) {
  const Value value = evaluate(*expression.parts[0], scope);
  CallArguments arguments = evaluate_arguments(expression, scope);
  line_ = expression.line;
  return Value(apply_test(*this, expression.text, value, arguments));
}

}  // namespace qkv::jinja
