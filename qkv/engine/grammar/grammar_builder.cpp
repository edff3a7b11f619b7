#include "qkv/engine/grammar/grammar_builder.h"

#include <algorithm>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"

namespace qkv {

ExpressionId GrammarBuilder::add(Expression expression) {
  require(expressions_.size() < kMaximumExpressions, "[grammar] more than {} expressions",
          kMaximumExpressions);
  for (const ExpressionId part : expression.parts)
    expression.depth = std::max(expression.depth, expressions_[part].depth + 1);
  require(expression.depth <= kMaximumDepth, "[grammar] expressions nested deeper than {} levels",
          kMaximumDepth);
  expressions_.push_back(std::move(expression));
  return static_cast<ExpressionId>(expressions_.size() - 1);
}

ExpressionId GrammarBuilder::text(std::string_view utf8) {
  std::vector<ExpressionId> parts;
  for (size_t position = 0; position < utf8.size();) {
    const auto character = next_code_point(utf8, position);
    require(character.has_value(), "[grammar] text: expected valid UTF-8, found '{}'",
            replace_invalid_utf8(utf8));
    parts.push_back(characters(CharacterSet::one(*character)));
  }
  return sequence(std::move(parts));
}

ExpressionId GrammarBuilder::characters(const CharacterSet& set) {
  if (set.empty()) return choice({});
  // The latest sets are often asked for again: a digit, a character of a string.
  for (size_t back = 1; back <= std::min<size_t>(8, sets_.size()); ++back) {
    if (sets_[sets_.size() - back].ranges() == set.ranges())
      return add(
          {.kind = Expression::Kind::characters, .target = static_cast<uint32_t>(sets_.size() - back)});
  }
  sets_.push_back(set);
  return add({.kind = Expression::Kind::characters, .target = static_cast<uint32_t>(sets_.size() - 1)});
}

ExpressionId GrammarBuilder::sequence(std::vector<ExpressionId> parts) {
  if (parts.size() == 1) return parts.front();
  return add({.kind = Expression::Kind::sequence, .parts = std::move(parts)});
}

ExpressionId GrammarBuilder::choice(std::vector<ExpressionId> parts) {
  if (parts.size() == 1) return parts.front();
  return add({.kind = Expression::Kind::choice, .parts = std::move(parts)});
}

ExpressionId GrammarBuilder::repeat(ExpressionId part, int64_t minimum, int64_t maximum) {
  const bool unlimited = maximum == Expression::kUnlimited;
  require(minimum >= 0 && (unlimited || maximum >= minimum),
          "[grammar] repetition: expected a maximum of at least the minimum {}, found {}", minimum, maximum);
  require(std::max(minimum, maximum) <= kMaximumRepetitions,
          "[grammar] repetition: expected counts up to {}, found {}", kMaximumRepetitions,
          std::max(minimum, maximum));
  if (minimum == 1 && maximum == 1) return part;
  if (maximum == 0) return sequence({});
  return add({.kind = Expression::Kind::repeat,
              .parts = {part},
              .minimum = static_cast<int32_t>(minimum),
              .maximum = static_cast<int32_t>(maximum)});
}

RuleId GrammarBuilder::declare(std::string name) {
  require(rules_.size() < kMaximumExpressions, "[grammar] more than {} rules", kMaximumExpressions);
  rules_.push_back({.name = std::move(name)});
  return static_cast<RuleId>(rules_.size() - 1);
}

void GrammarBuilder::define(RuleId rule, ExpressionId body) {
  rules_[rule].body = body;
  rules_[rule].defined = true;
}

ExpressionId GrammarBuilder::reference(RuleId rule) {
  return add({.kind = Expression::Kind::rule, .target = rule});
}

}  // namespace qkv
