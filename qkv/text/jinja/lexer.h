// Cuts a template into text, tags and the tokens inside of tags, with Jinja's white space rules: trim_blocks
// (the newline after a block tag goes), lstrip_blocks (so does the indentation before one), "-" and "+"
// signs, {% raw %}.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qkv::jinja {

enum class TokenKind {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,  // text says which
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;  // unescaped for strings, without underscores for numbers
  int line = 1;
  bool is(TokenKind what, std::string_view value) const { return kind == what && text == value; }
  bool is_name(std::string_view value) const { return is(TokenKind::name, value); }
  bool is_operator(std::string_view value) const { return is(TokenKind::op, value); }
};

// Throws Failure with its line. `source` must be valid UTF-8.
std::vector<Token> tokenize(std::string_view source);

}  // namespace qkv::jinja
