// Grammars as trees of expressions, which is what GBNF, regular expressions and JSON schemas become before
// they are compiled to an automaton.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/engine/grammar/character_set.h"

namespace qkv {

using ExpressionId = uint32_t;
using RuleId = uint32_t;

struct Expression {
  enum class Kind : uint8_t { sequence, choice, characters, repeat, rule };
  static constexpr int32_t kUnlimited = -1;

  Kind kind;
  std::vector<ExpressionId> parts = {};  // sequence, choice: any number; repeat: one
  uint32_t target = 0;                   // characters: index of the set; rule: its id
  int32_t minimum = 0, maximum = 0;      // repeat
  int32_t depth = 1;                     // of the tree below
};

// Every function throws Error when the grammar grows out of bounds: kMaximumExpressions, kMaximumDepth.
class GrammarBuilder {
 public:
  static constexpr size_t kMaximumExpressions = size_t{1} << 20;
  static constexpr int32_t kMaximumDepth = 1000;
  static constexpr int32_t kMaximumRepetitions = 1 << 16;

  ExpressionId text(std::string_view utf8);                // exactly this; Error unless valid UTF-8
  ExpressionId characters(const CharacterSet& set);        // one of them; of an empty set: nothing matches
  ExpressionId sequence(std::vector<ExpressionId> parts);  // of no parts: the empty text
  ExpressionId choice(std::vector<ExpressionId> parts);    // of no parts: nothing matches
  // Error for counts above kMaximumRepetitions, or minimum > maximum.
  ExpressionId repeat(ExpressionId part, int64_t minimum, int64_t maximum = Expression::kUnlimited);
  ExpressionId optional(ExpressionId part) { return repeat(part, 0, 1); }

  // A rule's name appears in errors only.
  RuleId declare(std::string name);
  void define(RuleId rule, ExpressionId body);
  ExpressionId reference(RuleId rule);

  struct Rule {
    std::string name;
    ExpressionId body = 0;
    bool defined = false;
  };
  const std::vector<Expression>& expressions() const { return expressions_; }
  const std::vector<CharacterSet>& sets() const { return sets_; }
  const std::vector<Rule>& rules() const { return rules_; }

 private:
  ExpressionId add(Expression expression);

  std::vector<Expression> expressions_;
  std::vector<CharacterSet> sets_;
  std::vector<Rule> rules_;
};

}  // namespace qkv
