// Expressions, by recursive descent with Jinja's precedence: conditional, or, and, not, comparisons, + -, ~,
// * / // %, **, unary, postfix, filters and tests.
#include <algorithm>

#include "qkv/text/jinja/token_stream.h"

namespace qkv::jinja {
namespace {

constexpr int kMaximumNesting = 120;  // brackets within brackets
constexpr int kMaximumHeight = 400;   // of a tree, also through chains such as a + b + c

}  // namespace

// Counts how deep the parser is inside of brackets, unary operators and conditionals.
class ExpressionParser::Nested {
 public:
  explicit Nested(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.nesting_ > kMaximumNesting)
      parser_.tokens_.fail_here(fmt::format("expressions nest deeper than {} levels", kMaximumNesting));
  }
  ~Nested() { --parser_.nesting_; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  ExpressionParser& parser_;
};

void ExpressionParser::finish(Expression& expression) const {
  int height = 0;
  for (const auto& part : expression.parts) height = std::max(height, part ? part->height : 0);
  for (const auto& argument : expression.arguments) height = std::max(height, argument.value->height);
  expression.height = height + 1;
  if (expression.height > kMaximumHeight)
    tokens_.fail_here(fmt::format("an expression has more than {} levels of operators", kMaximumHeight));
}

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line, std::vector<ExpressionPtr> parts) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  expression->parts = std::move(parts);
  finish(*expression);
  return expression;
}

namespace {

std::vector<ExpressionPtr> pair(ExpressionPtr first, ExpressionPtr second) {
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(first));
  parts.push_back(std::move(second));
  return parts;
}

std::vector<ExpressionPtr> single(ExpressionPtr only) {
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(only));
  return parts;
}

}  // namespace

ExpressionPtr ExpressionParser::constant(Value value, int line) const {
  auto expression = make(ExpressionKind::constant, line);
  expression->constant = std::move(value);
  return expression;
}

ExpressionPtr ExpressionParser::expression(bool with_conditional) {
  const Nested nested(*this);
  return with_conditional ? conditional() : logical_or();
}

ExpressionPtr ExpressionParser::conditional() {
  int line = tokens_.current().line;
  ExpressionPtr value = logical_or();
  while (tokens_.skip_name("if")) {
    std::vector<ExpressionPtr> parts;
    parts.push_back(logical_or());
    parts.push_back(std::move(value));
    if (tokens_.skip_name("else")) {
      const Nested nested(*this);
      parts.push_back(conditional());
    } else {
      parts.push_back(nullptr);
    }
    value = make(ExpressionKind::conditional, line, std::move(parts));
    line = tokens_.current().line;
  }
  return value;
}

ExpressionPtr ExpressionParser::logical_or() {
  const int line = tokens_.current().line;
  ExpressionPtr left = logical_and();
  while (tokens_.skip_name("or"))
    left = make(ExpressionKind::logical_or, line, pair(std::move(left), logical_and()));
  return left;
}

ExpressionPtr ExpressionParser::logical_and() {
  const int line = tokens_.current().line;
  ExpressionPtr left = logical_not();
  while (tokens_.skip_name("and"))
    left = make(ExpressionKind::logical_and, line, pair(std::move(left), logical_not()));
  return left;
}

ExpressionPtr ExpressionParser::logical_not() {
  const int line = tokens_.current().line;
  if (!tokens_.skip_name("not")) return comparison();
  const Nested nested(*this);
  return make(ExpressionKind::logical_not, line, single(logical_not()));
}

ExpressionPtr ExpressionParser::comparison() {
  constexpr std::pair<std::string_view, Comparison> kOperators[] = {
      {"==", Comparison::equal},      {"!=", Comparison::not_equal}, {"<", Comparison::less},
      {"<=", Comparison::less_equal}, {">", Comparison::greater},    {">=", Comparison::greater_equal}};
  const int line = tokens_.current().line;
  std::vector<ExpressionPtr> parts;
  parts.push_back(sum());
  std::vector<Comparison> comparisons;
  while (true) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& candidate) { return tokens_.current().is_operator(candidate.first); });
    if (found != std::end(kOperators)) {
      tokens_.take();
      comparisons.push_back(found->second);
    } else if (tokens_.skip_name("in")) {
      comparisons.push_back(Comparison::in);
    } else if (tokens_.current().is_name("not") && tokens_.ahead().is_name("in")) {
      tokens_.take();
      tokens_.take();
      comparisons.push_back(Comparison::not_in);
    } else {
      break;
    }
    parts.push_back(sum());
  }
  if (comparisons.empty()) return std::move(parts[0]);
  auto expression = make(ExpressionKind::compare, line, std::move(parts));
  expression->comparisons = std::move(comparisons);
  return expression;
}

ExpressionPtr ExpressionParser::sum() {
  const int line = tokens_.current().line;
  ExpressionPtr left = concatenation();
  while (tokens_.current().is_operator("+") || tokens_.current().is_operator("-")) {
    const bool add = tokens_.take().text == "+";
    left = make(ExpressionKind::binary, line, pair(std::move(left), concatenation()));
    left->op = add ? BinaryOperator::add : BinaryOperator::subtract;
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = tokens_.current().line;
  std::vector<ExpressionPtr> parts;
  parts.push_back(product());
  while (tokens_.skip_operator("~")) parts.push_back(product());
  if (parts.size() == 1) return std::move(parts[0]);
  return make(ExpressionKind::concatenate, line, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  constexpr std::pair<std::string_view, BinaryOperator> kOperators[] = {{"*", BinaryOperator::multiply},
                                                                        {"/", BinaryOperator::divide},
                                                                        {"//", BinaryOperator::floor_divide},
                                                                        {"%", BinaryOperator::modulo}};
  const int line = tokens_.current().line;
  ExpressionPtr left = power();
  while (true) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& candidate) { return tokens_.current().is_operator(candidate.first); });
    if (found == std::end(kOperators)) return left;
    tokens_.take();
    left = make(ExpressionKind::binary, line, pair(std::move(left), power()));
    left->op = found->second;
  }
}

ExpressionPtr ExpressionParser::power() {
  const int line = tokens_.current().line;
  ExpressionPtr left = unary();
  while (tokens_.skip_operator("**")) {
    left = make(ExpressionKind::binary, line, pair(std::move(left), unary()));
    left->op = BinaryOperator::power;
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const int line = tokens_.current().line;
  ExpressionPtr value;
  if (tokens_.skip_operator("-")) {
    const Nested nested(*this);
    value = make(ExpressionKind::negative, line, single(unary(false)));
  } else if (tokens_.skip_operator("+")) {
    const Nested nested(*this);
    value = make(ExpressionKind::positive, line, single(unary(false)));
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  if (!with_filters) return value;
  while (true) {
    if (tokens_.current().is_operator("|")) {
      value = filters(std::move(value), false);
    } else if (tokens_.current().is_name("is")) {
      value = test(std::move(value));
    } else if (tokens_.current().is_operator("(")) {
      value = call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::primary() {
  const Token token = tokens_.current();
  switch (token.kind) {
    case TokenKind::name: {
      tokens_.take();
      if (token.text == "true" || token.text == "True") return constant(Value(true), token.line);
      if (token.text == "false" || token.text == "False") return constant(Value(false), token.line);
      if (token.text == "none" || token.text == "None") return constant(Value::none(), token.line);
      auto name = make(ExpressionKind::name, token.line);
      name->text = token.text;
      return name;
    }
    case TokenKind::string: {
      std::string text;
      while (tokens_.current().kind == TokenKind::string)
        text += tokens_.take().text;  // adjacent strings are one
      return constant(Value(std::make_shared<Text>(std::move(text))), token.line);
    }
    case TokenKind::integer: {
      const auto value = parse_integer(token.text, 0);
      if (!value) tokens_.fail_here("'" + token.text + "' is no integer");
      tokens_.take();
      return constant(Value(*value), token.line);
    }
    case TokenKind::real: {
      const auto value = parse_real(token.text);
      if (!value) tokens_.fail_here("'" + token.text + "' is no number");
      tokens_.take();
      return constant(Value(*value), token.line);
    }
    default:
      break;
  }
  if (tokens_.skip_operator("(")) {
    ExpressionPtr value = tuple(true, "", true);
    tokens_.expect_operator(")");
    return value;
  }
  if (token.is_operator("[")) return list();
  if (token.is_operator("{")) return dict();
  tokens_.fail_here(fmt::format("expected an expression, found {}", TokenStream::describe(token)));
}

bool ExpressionParser::at_tuple_end(std::string_view end_name) const {
  const Token& token = tokens_.current();
  return token.kind == TokenKind::variable_end || token.kind == TokenKind::block_end ||
         token.is_operator(")") || (!end_name.empty() && token.is_name(end_name));
}

ExpressionPtr ExpressionParser::tuple(bool with_conditional, std::string_view end_name, bool parenthesized) {
  const int line = tokens_.current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end(end_name)) {
    items.push_back(expression(with_conditional));
    if (!tokens_.skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!parenthesized)
      tokens_.fail_here(
          fmt::format("expected an expression, found {}", TokenStream::describe(tokens_.current())));
  }
  return make(ExpressionKind::tuple, line, std::move(items));
}

ExpressionPtr ExpressionParser::list() {
  const int line = tokens_.take().line;
  std::vector<ExpressionPtr> items;
  while (!tokens_.current().is_operator("]")) {
    items.push_back(expression());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("]");
  return make(ExpressionKind::list, line, std::move(items));
}

ExpressionPtr ExpressionParser::dict() {
  const int line = tokens_.take().line;
  std::vector<ExpressionPtr> parts;
  while (!tokens_.current().is_operator("}")) {
    parts.push_back(expression());
    tokens_.expect_operator(":");
    parts.push_back(expression());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("}");
  return make(ExpressionKind::dict, line, std::move(parts));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr operand) {
  while (true) {
    if (tokens_.current().is_operator(".") || tokens_.current().is_operator("[")) {
      operand = subscript(std::move(operand));
    } else if (tokens_.current().is_operator("(")) {
      operand = call(std::move(operand));
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr operand) {
  const Token open = tokens_.take();
  if (open.text == "[") return slice_or_item(std::move(operand), open.line);
  const Token name = tokens_.current();
  if (name.kind == TokenKind::integer) {  // "a.0" is a[0]
    return make(ExpressionKind::item, open.line, pair(std::move(operand), primary()));
  }
  tokens_.expect(TokenKind::name, "a name or a number after '.'");
  auto attribute = make(ExpressionKind::attribute, open.line, single(std::move(operand)));
  attribute->text = name.text;
  return attribute;
}

ExpressionPtr ExpressionParser::slice_or_item(ExpressionPtr operand, int line) {
  std::vector<ExpressionPtr> keys;
  while (!tokens_.current().is_operator("]")) {
    if (!keys.empty()) tokens_.expect_operator(",");
    if (!tokens_.current().is_operator(":")) keys.push_back(expression());
    if (!tokens_.current().is_operator(":")) continue;
    // start : stop : step, each may be missing
    if (keys.size() > 1) tokens_.fail_here("a slice cannot be part of a tuple of subscripts");
    std::vector<ExpressionPtr> parts = single(std::move(operand));
    parts.push_back(keys.empty() ? nullptr : std::move(keys[0]));
    for (int i = 0; i < 2; ++i) {
      const bool present = tokens_.skip_operator(":") && !tokens_.current().is_operator(":") &&
                           !tokens_.current().is_operator("]") && !tokens_.current().is_operator(",");
      parts.push_back(present ? expression() : nullptr);
    }
    tokens_.expect_operator("]");
    return make(ExpressionKind::slice, line, std::move(parts));
  }
  tokens_.expect_operator("]");
  ExpressionPtr key =
      keys.size() == 1 ? std::move(keys[0]) : make(ExpressionKind::tuple, line, std::move(keys));
  return make(ExpressionKind::item, line, pair(std::move(operand), std::move(key)));
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  const int line = tokens_.current().line;
  auto expression = make(ExpressionKind::call, line, single(std::move(callee)));
  expression->arguments = arguments();
  finish(*expression);
  return expression;
}

std::vector<Argument> ExpressionParser::arguments() {
  std::vector<Argument> result;
  tokens_.expect_operator("(");
  bool spread = false, spread_named = false, named = false;
  const auto check = [&](bool allowed) {
    if (!allowed) tokens_.fail_here("the arguments of a call are in the wrong order");
  };
  while (!tokens_.current().is_operator(")")) {
    Argument argument;
    if (tokens_.current().is_operator("*")) {
      check(!spread && !spread_named);
      tokens_.take();
      spread = true;
      argument.kind = Argument::Kind::spread;
    } else if (tokens_.current().is_operator("**")) {
      check(!spread_named);
      tokens_.take();
      spread_named = true;
      argument.kind = Argument::Kind::spread_named;
    } else if (tokens_.current().kind == TokenKind::name && tokens_.ahead().is_operator("=")) {
      check(!spread_named);
      named = true;
      argument.kind = Argument::Kind::named;
      argument.name = tokens_.take().text;
      tokens_.take();
    } else {
      check(!spread && !spread_named && !named);
    }
    argument.value = expression();
    result.push_back(std::move(argument));
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator(")");
  return result;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr operand, bool started) {
  while (started || tokens_.skip_operator("|")) {
    started = false;
    const Token token = tokens_.expect(TokenKind::name, "the name of a filter");
    auto filter = make(ExpressionKind::filter, token.line, single(std::move(operand)));
    filter->text = token.text;
    while (tokens_.skip_operator("."))
      filter->text += "." + tokens_.expect(TokenKind::name, "the name of a filter").text;
    if (tokens_.current().is_operator("(")) filter->arguments = arguments();
    finish(*filter);
    operand = std::move(filter);
  }
  return operand;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr operand) {
  const int line = tokens_.take().line;  // is
  const bool negated = tokens_.skip_name("not");
  auto expression = make(ExpressionKind::test, line, single(std::move(operand)));
  expression->text = tokens_.expect(TokenKind::name, "the name of a test").text;
  while (tokens_.skip_operator("."))
    expression->text += "." + tokens_.expect(TokenKind::name, "the name of a test").text;
  const Token& next = tokens_.current();
  const bool begins_value = next.kind == TokenKind::name || next.kind == TokenKind::string ||
                            next.kind == TokenKind::integer || next.kind == TokenKind::real ||
                            next.is_operator("[") || next.is_operator("{");
  if (next.is_operator("(")) {
    expression->arguments = arguments();
  } else if (begins_value && !next.is_name("else") && !next.is_name("or") && !next.is_name("and")) {
    if (next.is_name("is")) tokens_.fail_here("tests cannot be chained with 'is'");
    // One argument needs no parentheses: "x is divisibleby 3".
    Argument argument;
    const Nested nested(*this);
    argument.value = postfix(primary());
    expression->arguments.push_back(std::move(argument));
  }
  finish(*expression);
  return negated ? make(ExpressionKind::logical_not, line, single(std::move(expression)))
                 : std::move(expression);
}

Target ExpressionParser::target_item() {
  const Nested nested(*this);
  if (tokens_.skip_operator("(")) {
    Target inner = simple_target("");
    tokens_.expect_operator(")");
    return inner;
  }
  Target target;
  target.line = tokens_.current().line;
  target.name = tokens_.expect(TokenKind::name, "a name to assign to").text;
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (target.name == constant) tokens_.fail_here(fmt::format("'{}' cannot be assigned to", constant));
  }
  return target;
}

Target ExpressionParser::simple_target(std::string_view end_name) {
  Target tuple;
  tuple.kind = Target::Kind::tuple;
  tuple.line = tokens_.current().line;
  bool is_tuple = false;
  while (!at_tuple_end(end_name)) {
    tuple.items.push_back(target_item());
    if (!tokens_.skip_operator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return tuple;
  if (tuple.items.empty()) tokens_.fail_here("expected a name to assign to");
  Target only = std::move(tuple.items[0]);
  return only;
}

Target ExpressionParser::target(bool attributes, std::string_view end_name) {
  if (!attributes || !tokens_.ahead().is_operator(".")) return simple_target(end_name);
  Target target;
  target.kind = Target::Kind::attribute;
  target.line = tokens_.current().line;
  target.name = tokens_.expect(TokenKind::name, "a name to assign to").text;
  tokens_.take();
  target.attribute = tokens_.expect(TokenKind::name, "the name of an attribute").text;
  return target;
}

}  // namespace qkv::jinja
