// GBNF, llama.cpp's grammar language (its grammars/README.md):
//
//   root ::= "yes" | "no" reason?      # strings, alternatives, names of rules, repetition: * + ? {m} {m,}
//   {m,n} reason ::= ": " ( [^\n] | "\n" [ \t] ){1,80} .
//
// A rule goes on to the next line inside of parentheses and after "::=" and "|". Escapes in strings and
// sets: \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH, each one character.
#include <map>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/engine/grammar/grammar.h"
#include "qkv/engine/grammar/source_text.h"

namespace qkv {
namespace {

constexpr int kMaximumNesting = 200;
constexpr size_t kMaximumSource = size_t{4} << 20;

class GbnfParser {
 public:
  GbnfParser(std::string_view text, std::string_view where) : where_(where), source_(text, where) {}

  std::shared_ptr<const Grammar> parse() {
    skip_space(true);
    while (!source_.at_end()) parse_rule();
    const auto root = rules_.find("root");
    require(root != rules_.end() && builder_.rules()[root->second.id].defined,
            "{}: expected a rule named root, found none", where_);
    for (const auto& [name, rule] : rules_) {
      if (!builder_.rules()[rule.id].defined)
        source_.expected("the name of a rule that is defined somewhere", fmt::format("'{}'", name),
                         rule.first_use);
    }
    return compile_grammar(builder_, root->second.id, where_);
  }

 private:
  struct NamedRule {
    RuleId id;
    size_t first_use;
  };

  void skip_space(bool newlines) {
    while (true) {
      const char32_t next = source_.peek();
      if (next == '#') {
        while (!source_.at_end() && source_.peek() != '\n' && source_.peek() != '\r') source_.next();
      } else if (next == ' ' || next == '\t' || (newlines && (next == '\n' || next == '\r'))) {
        source_.next();
      } else {
        return;
      }
    }
  }

  static bool is_name(char32_t character) {
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
           (character >= '0' && character <= '9') || character == '-' || character == '_';
  }

  RuleId parse_name() {
    const size_t begin = source_.position();
    std::string name;
    while (is_name(source_.peek())) name += static_cast<char>(source_.next());
    const auto found = rules_.find(name);
    if (found != rules_.end()) return found->second.id;
    const RuleId rule = builder_.declare(name);
    rules_.emplace(name, NamedRule{rule, begin});
    return rule;
  }

  void parse_rule() {
    const size_t begin = source_.position();
    if (!is_name(source_.peek())) source_.expected("the name of a rule");
    const RuleId rule = parse_name();
    if (builder_.rules()[rule].defined)
      source_.refuse(fmt::format("rule '{}' is defined a second time", builder_.rules()[rule].name), begin);
    skip_space(false);
    if (!source_.skip("::=")) source_.expected("'::=' after the name of a rule");
    skip_space(true);
    builder_.define(rule, parse_alternatives(0));
    if (!source_.at_end() && source_.peek() != '\n' && source_.peek() != '\r')
      source_.expected("a string, a set, a name, a group, '|' or the end of the rule");
    skip_space(true);
  }

  ExpressionId parse_alternatives(int nesting) {
    std::vector<ExpressionId> alternatives = {parse_sequence(nesting)};
    while (source_.skip("|")) {
      skip_space(true);
      alternatives.push_back(parse_sequence(nesting));
    }
    return builder_.choice(std::move(alternatives));
  }

  ExpressionId parse_sequence(int nesting) {
    std::vector<ExpressionId> parts;
    while (true) {
      const char32_t next = source_.peek();
      if (source_.skip("\"")) {
        parts.push_back(parse_string());
      } else if (source_.skip("[")) {
        parts.push_back(parse_set());
      } else if (source_.skip(".")) {
        parts.push_back(builder_.characters(CharacterSet::all()));
      } else if (next == '(') {
        if (nesting == kMaximumNesting)
          source_.refuse(fmt::format("groups nested deeper than {} levels", kMaximumNesting),
                         source_.position());
        source_.next();
        skip_space(true);
        parts.push_back(parse_alternatives(nesting + 1));
        if (!source_.skip(")")) source_.expected("')'");
      } else if (is_name(next)) {
        parts.push_back(builder_.reference(parse_name()));
      } else if (next == '<' || next == '!') {
        source_.refuse("grammars over token ids are not supported: write the text of the token as a string",
                       source_.position());
      } else {
        return builder_.sequence(std::move(parts));
      }
      skip_space(nesting > 0);
      parts.back() = parse_repetition(parts.back());
      skip_space(nesting > 0);
    }
  }

  ExpressionId parse_repetition(ExpressionId part) {
    const size_t begin = source_.position();
    if (source_.skip("*")) return builder_.repeat(part, 0);
    if (source_.skip("+")) return builder_.repeat(part, 1);
    if (source_.skip("?")) return builder_.optional(part);
    if (!source_.skip("{")) return part;
    skip_space(true);
    const auto minimum = source_.number(GrammarBuilder::kMaximumRepetitions);
    skip_space(true);
    std::optional<int64_t> maximum = minimum;
    if (source_.skip(",")) {
      skip_space(true);
      maximum = source_.number(GrammarBuilder::kMaximumRepetitions);
      if (!minimum && !maximum) source_.expected("a number");
      skip_space(true);
    } else if (!minimum) {
      source_.expected("a number");
    }
    if (!source_.skip("}")) source_.expected("'}'");
    if (maximum && *maximum < minimum.value_or(0))
      source_.expected(fmt::format("a maximum of at least {}", *minimum), fmt::format("{}", *maximum), begin);
    return builder_.repeat(part, minimum.value_or(0), maximum.value_or(Expression::kUnlimited));
  }

  // A character of a string or set.
  char32_t parse_character(std::string_view what) {
    if (source_.at_end() || source_.peek() == '\n') source_.expected(fmt::format("the end of the {}", what));
    const size_t begin = source_.position();
    const char32_t character = source_.next();
    if (character != '\\') return character;
    switch (source_.next()) {
      case 'x':
        return source_.hexadecimal(2);
      case 'u':
        return source_.hexadecimal(4);
      case 'U':
        return source_.hexadecimal(8);
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '\\':
        return '\\';
      case '"':
        return '"';
      case '[':
        return '[';
      case ']':
        return ']';
      default:
        source_.expected(R"(one of the escapes \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH)", "another",
                         begin);
    }
  }

  ExpressionId parse_string() {
    std::vector<ExpressionId> parts;
    while (!source_.skip("\""))
      parts.push_back(builder_.characters(CharacterSet::one(parse_character("string"))));
    return builder_.sequence(std::move(parts));
  }

  ExpressionId parse_set() {
    const size_t begin = source_.position() - 1;
    const bool negated = source_.skip("^");
    std::vector<CharacterRange> ranges;
    while (!source_.skip("]")) {
      const size_t place = source_.position();
      const char32_t first = parse_character("set");
      char32_t last = first;
      if (source_.rest().starts_with('-') && !source_.rest().starts_with("-]")) {
        source_.next();
        last = parse_character("set");
        if (last < first)
          source_.expected("a range from a lower to a higher character", "the opposite", place);
      }
      ranges.push_back({first, last});
    }
    const CharacterSet listed(std::move(ranges));
    const CharacterSet set = negated ? listed.complement() : listed;
    if (set.empty()) source_.refuse("no character is in this set", begin);
    return builder_.characters(set);
  }

  std::string where_;
  SourceText source_;
  GrammarBuilder builder_;
  std::map<std::string, NamedRule, std::less<>> rules_;
};

}  // namespace

std::shared_ptr<const Grammar> grammar_from_gbnf(std::string_view text, std::string_view where) {
  require(text.size() <= kMaximumSource, "{}: expected a grammar of at most {} bytes, found {}", where,
          kMaximumSource, text.size());
  return GbnfParser(text, where).parse();
}

}  // namespace qkv
