// The pieces that grammars of JSON texts (RFC 8259) are made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/engine/grammar/grammar_builder.h"

namespace qkv {

// White space is allowed where pretty printers put it, and bounded, so that a model cannot go on with it
// forever: after brackets, commas and colons, a space or a line break with indentation.
class JsonExpressions {
 public:
  explicit JsonExpressions(GrammarBuilder& builder) : builder_(builder) {}

  ExpressionId space();
  // A value of any kind, an object, an array.
  ExpressionId value();
  ExpressionId object();
  ExpressionId array();
  // With so many characters, each of which may be spelled as an escape.
  ExpressionId string(int64_t minimum = 0, int64_t maximum = Expression::kUnlimited);
  // The characters that `content` stands for, in quotes.
  ExpressionId quoted(ExpressionId content);
  // Characters of a string, each in one spelling only: escaped if it must be.
  ExpressionId spelled(const CharacterSet& set);
  // A string that is none of these.
  ExpressionId string_except(const std::vector<std::string>& excluded);
  ExpressionId boolean() { return builder_.choice({builder_.text("true"), builder_.text("false")}); }
  ExpressionId null() { return builder_.text("null"); }
  // Exactly this value, in compact spelling.
  ExpressionId constant(const Json& json);
  // "," and white space; what goes between elements and members.
  ExpressionId comma() { return builder_.sequence({builder_.text(","), space()}); }
  // A member of an object, its name in quotes already.
  ExpressionId member(ExpressionId name, ExpressionId value);
  // All elements with white space inside of the brackets; `elements` must not match the empty text.
  ExpressionId bracketed(const char* open, ExpressionId elements, bool may_be_empty, const char* close);

 private:
  ExpressionId hexadecimal(std::string_view first);
  ExpressionId any_character();

  GrammarBuilder& builder_;
  std::optional<RuleId> value_, space_, object_, array_;
  std::optional<ExpressionId> character_;
};

}  // namespace qkv
