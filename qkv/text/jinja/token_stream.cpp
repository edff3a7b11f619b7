// Tokens one after the other, with sentences for what is not as expected.
#include "qkv/text/jinja/token_stream.h"

namespace qkv::jinja {

Token TokenStream::take() {
  Token token = current();
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool TokenStream::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  take();
  return true;
}

bool TokenStream::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  take();
  return true;
}

Token TokenStream::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) fail_here(fmt::format("expected {}, found {}", what, describe(current())));
  return take();
}

void TokenStream::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_here(fmt::format("expected '{}', found {}", name, describe(current())));
}

void TokenStream::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_here(fmt::format("expected '{}', found {}", op, describe(current())));
}

void TokenStream::fail_here(const std::string& what) const {
  Failure failure(FailureKind::syntax, what);
  failure.line = current().line;
  throw failure;
}

std::string TokenStream::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::data:
      return "text";
    case TokenKind::variable_begin:
      return "'{{'";
    case TokenKind::variable_end:
      return "'}}'";
    case TokenKind::block_begin:
      return "'{%'";
    case TokenKind::block_end:
      return "'%}'";
    case TokenKind::string:
      return "a string";
    case TokenKind::end:
      return "the end of the template";
    case TokenKind::name:
    case TokenKind::integer:
    case TokenKind::real:
    case TokenKind::op:
      return "'" + token.text + "'";
  }
  return "";
}

}  // namespace qkv::jinja
