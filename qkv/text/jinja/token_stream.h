// Tokens with a look ahead, and the parser of expressions on top of them.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/text/jinja/ast.h"
#include "qkv/text/jinja/lexer.h"

namespace qkv::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& ahead() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  Token expect(TokenKind kind, std::string_view what);
  void expect_name(std::string_view name);
  void expect_operator(std::string_view op);
  [[noreturn]] void fail_here(const std::string& what) const;
  // How a token reads in a message.
  static std::string describe(const Token& token);

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExpressionPtr expression(bool with_conditional = true);
  // An expression, or a tuple of them without parentheses.
  ExpressionPtr tuple(bool with_conditional = true, std::string_view end_name = "",
                      bool parenthesized = false);
  ExpressionPtr filters(ExpressionPtr operand, bool started);
  // `name`, `name, name`, `(name, name)`; with `attributes` also `name.attribute`.
  Target target(bool attributes, std::string_view end_name);

 private:
  class Nested;
  ExpressionPtr make(ExpressionKind kind, int line, std::vector<ExpressionPtr> parts = {}) const;
  ExpressionPtr constant(Value value, int line) const;
  void finish(Expression& expression) const;
  bool at_tuple_end(std::string_view end_name) const;

  ExpressionPtr conditional();
  ExpressionPtr logical_or();
  ExpressionPtr logical_and();
  ExpressionPtr logical_not();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr operand);
  ExpressionPtr subscript(ExpressionPtr operand);
  ExpressionPtr slice_or_item(ExpressionPtr operand, int line);
  ExpressionPtr call(ExpressionPtr callee);
  ExpressionPtr test(ExpressionPtr operand);
  std::vector<Argument> arguments();
  Target simple_target(std::string_view end_name);
  Target target_item();

  TokenStream& tokens_;
  int nesting_ = 0;
};

}  // namespace qkv::jinja
