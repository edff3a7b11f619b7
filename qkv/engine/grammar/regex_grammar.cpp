#include "qkv/engine/grammar/regex_grammar.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/engine/grammar/grammar.h"
#include "qkv/engine/grammar/source_text.h"

namespace qkv {
namespace {

constexpr int kMaximumNesting = 200;
constexpr size_t kMaximumPattern = size_t{1} << 20;

// ECMA-262: WhiteSpace and LineTerminator.
const CharacterSet& white_space() {
  static const CharacterSet set({{0x09, 0x0D},
                                 {0x20, 0x20},
                                 {0xA0, 0xA0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200A},
                                 {0x2028, 0x2029},
                                 {0x202F, 0x202F},
                                 {0x205F, 0x205F},
                                 {0x3000, 0x3000},
                                 {0xFEFF, 0xFEFF}});
  return set;
}
const CharacterSet& digits() {
  static const CharacterSet set({{'0', '9'}});
  return set;
}
const CharacterSet& word_characters() {
  static const CharacterSet set({{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}});
  return set;
}
const CharacterSet& not_line_ends() {
  static const CharacterSet set = CharacterSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).complement();
  return set;
}

bool is_letter_or_digit(char32_t character) {
  return character < 0x80 && word_characters().contains(character) && character != '_';
}

class RegexParser {
 public:
  RegexParser(GrammarBuilder& builder, std::string_view pattern, std::string_view where,
              const RegexOptions& options)
      : builder_(builder), source_(pattern, where), options_(options) {}

  ExpressionId parse() {
    const ExpressionId result = parse_alternatives(0);
    if (!source_.at_end()) source_.expected("the end of the pattern");
    return result;
  }

 private:
  ExpressionId write(const CharacterSet& set) {
    return options_.write ? options_.write(set) : builder_.characters(set);
  }

  ExpressionId anything() {
    if (!anything_) anything_ = builder_.repeat(write(CharacterSet::all()), 0);
    return *anything_;
  }

  ExpressionId parse_alternatives(int nesting) {
    std::vector<ExpressionId> alternatives;
    do {
      alternatives.push_back(parse_alternative(nesting));
    } while (source_.skip("|"));
    return builder_.choice(std::move(alternatives));
  }

  ExpressionId parse_alternative(int nesting) {
    std::vector<ExpressionId> parts;
    const bool outside = nesting == 0;
    const bool from_start = outside && source_.skip("^");
    bool to_end = false;
    while (!source_.at_end() && source_.peek() != '|' && source_.peek() != ')') {
      const size_t begin = source_.position();
      if (source_.skip("^")) source_.refuse("'^' is supported at the beginning of the pattern only", begin);
      if (source_.skip("$")) {
        to_end = outside && (source_.at_end() || source_.peek() == '|');
        if (!to_end) source_.refuse("'$' is supported at the end of the pattern only", begin);
        break;
      }
      parts.push_back(parse_term(nesting));
      parts.back() = parse_quantifier(parts.back());
    }
    if (outside && options_.searches) {
      if (!from_start) parts.insert(parts.begin(), anything());
      if (!to_end) parts.push_back(anything());
    }
    return builder_.sequence(std::move(parts));
  }

  ExpressionId parse_term(int nesting) {
    const size_t begin = source_.position();
    const char32_t character = source_.next();
    switch (character) {
      case '(':
        return parse_group(nesting, begin);
      case '[':
        return write(parse_class(begin));
      case '.':
        return write(not_line_ends());
      case '\\': {
        if (const auto set = parse_set_escape()) return write(*set);
        return write(CharacterSet::one(parse_escape(begin, false)));
      }
      case '*':
      case '+':
      case '?':
      case '{':
        source_.refuse(fmt::format("'{}' has nothing to repeat; for the character itself write '\\{}'",
                                   static_cast<char>(character), static_cast<char>(character)),
                       begin);
      default:
        return write(CharacterSet::one(character));
    }
  }

  ExpressionId parse_group(int nesting, size_t begin) {
    if (nesting == kMaximumNesting)
      source_.refuse(fmt::format("groups nested deeper than {} levels", kMaximumNesting), begin);
    if (source_.skip("?")) {
      if (source_.rest().starts_with("=") || source_.rest().starts_with("!") ||
          source_.rest().starts_with("<=") || source_.rest().starts_with("<!"))
        source_.refuse("look-ahead and look-behind are not supported", begin);
      if (source_.skip("<")) {
        while (source_.peek() == '$' || word_characters().contains(source_.peek()) || source_.peek() >= 0x80)
          source_.next();
        if (!source_.skip(">")) source_.expected("'>' after the name of a group");
      } else if (!source_.skip(":")) {
        source_.expected("':' or a name after '(?'");
      }
    }
    const ExpressionId body = parse_alternatives(nesting + 1);
    if (!source_.skip(")")) source_.expected("')'");
    return body;
  }

  ExpressionId parse_quantifier(ExpressionId part) {
    const size_t begin = source_.position();
    int64_t minimum = 0, maximum = Expression::kUnlimited;
    if (source_.skip("?")) {
      maximum = 1;
    } else if (source_.skip("+")) {
      minimum = 1;
    } else if (source_.skip("{")) {
      const auto from = source_.number(GrammarBuilder::kMaximumRepetitions);
      if (!from) source_.expected("a number of repetitions; for the character itself write '\\{'");
      minimum = maximum = *from;
      if (source_.skip(","))
        maximum = source_.number(GrammarBuilder::kMaximumRepetitions).value_or(Expression::kUnlimited);
      if (!source_.skip("}")) source_.expected("'}'");
      if (maximum != Expression::kUnlimited && maximum < minimum)
        source_.expected(fmt::format("a maximum of at least {}", minimum), fmt::format("{}", maximum), begin);
    } else if (!source_.skip("*")) {
      return part;
    }
    source_.skip("?");  // lazy: the same texts
    const char32_t next = source_.peek();
    if (next == '*' || next == '+' || next == '?' || next == '{')
      source_.refuse("a repetition of a repetition needs a group", source_.position());
    return builder_.repeat(part, minimum, maximum);
  }

  // \d and its like, after the backslash; nullopt, without moving, if it is another escape.
  std::optional<CharacterSet> parse_set_escape() {
    const auto set_of = [](char32_t letter) -> const CharacterSet* {
      switch (letter | 0x20) {
        case 'd':
          return &digits();
        case 'w':
          return &word_characters();
        case 's':
          return &white_space();
        default:
          return nullptr;
      }
    };
    const char32_t letter = source_.peek();
    if (letter >= 0x80 || !is_letter_or_digit(letter)) return std::nullopt;
    const CharacterSet* set = set_of(letter);
    if (set == nullptr) return std::nullopt;
    source_.next();
    return (letter & 0x20) != 0 ? *set : set->complement();
  }

  // One character, after the backslash.
  char32_t parse_escape(size_t begin, bool in_class) {
    if (source_.at_end()) source_.expected("a character after '\\'");
    const char32_t letter = source_.next();
    switch (letter) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'v':
        return '\v';
      case 'f':
        return '\f';
      case 'r':
        return '\r';
      case 'x':
        return source_.hexadecimal(2);
      case 'u':
        return parse_unicode_escape(begin);
      case 'c': {
        const char32_t control = source_.peek();
        if (control >= 0x80 || !is_letter_or_digit(control) || control <= '9')
          source_.expected("a letter after '\\c'");
        return source_.next() % 32;
      }
      case 'b':
        if (in_class) return '\b';
        [[fallthrough]];
      case 'B':
        source_.refuse("word boundaries are not supported", begin);
      case '0':
        if (!digits().contains(source_.peek())) return 0;
        [[fallthrough]];
      default:
        break;
    }
    if (digits().contains(letter) || letter == 'k') source_.refuse("backreferences are not supported", begin);
    if (letter == 'p' || letter == 'P')
      source_.refuse("Unicode properties (\\p{...}) are not supported", begin);
    if (is_letter_or_digit(letter))
      source_.expected("a known escape", fmt::format("'\\{}'", static_cast<char>(letter)), begin);
    return letter;
  }

  char32_t parse_unicode_escape(size_t begin) {
    uint32_t value = 0;
    if (source_.skip("{")) {
      int count = 0;
      while (!source_.skip("}")) {
        if (++count > 6) source_.expected("at most 6 hexadecimal digits", "more", begin);
        value = value * 16 + source_.hexadecimal_number(1);
      }
      if (count == 0) source_.expected("hexadecimal digits", "none", begin);
    } else {
      value = source_.hexadecimal_number(4);
      if (value >= 0xD800 && value < 0xDC00 && source_.skip("\\u")) {
        const uint32_t low = source_.hexadecimal_number(4);
        const bool pair = low >= 0xDC00 && low < 0xE000;
        value = pair ? 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00) : value;
      }
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      source_.expected("a character up to U+10FFFF or a whole pair of surrogates",
                       fmt::format("U+{:04X}", value), begin);
    return value;
  }

  CharacterSet parse_class(size_t begin) {
    const bool negated = source_.skip("^");
    CharacterSet set;
    std::vector<CharacterRange> ranges;
    // A character, or nullopt if a whole set was added.
    const auto member = [&]() -> std::optional<char32_t> {
      if (source_.at_end()) source_.expected("']'");
      const size_t place = source_.position();
      const char32_t character = source_.next();
      if (character != '\\') return character;
      if (const auto escaped = parse_set_escape()) {
        set = set | *escaped;
        return std::nullopt;
      }
      return parse_escape(place, true);
    };
    while (!source_.skip("]")) {
      const size_t place = source_.position();
      const std::optional<char32_t> first = member();
      if (!first) continue;
      char32_t last = *first;
      if (source_.rest().starts_with('-') && !source_.rest().starts_with("-]")) {
        source_.next();
        if (const std::optional<char32_t> end = member()) {
          last = *end;
          if (last < *first)
            source_.expected("a range from a lower to a higher character", "the opposite", place);
        } else {
          ranges.push_back({'-', '-'});
        }
      }
      ranges.push_back({*first, last});
    }
    set = set | CharacterSet(std::move(ranges));
    if (negated) set = set.complement();
    if (set.empty()) source_.refuse("no character is in this class", begin);
    return set;
  }

  GrammarBuilder& builder_;
  SourceText source_;
  const RegexOptions& options_;
  std::optional<ExpressionId> anything_;
};

}  // namespace

ExpressionId add_regex(GrammarBuilder& builder, std::string_view pattern, std::string_view where,
                       const RegexOptions& options) {
  require(pattern.size() <= kMaximumPattern, "{}: expected a pattern of at most {} bytes, found {}", where,
          kMaximumPattern, pattern.size());
  return RegexParser(builder, pattern, where, options).parse();
}

std::shared_ptr<const Grammar> grammar_from_regex(std::string_view pattern, std::string_view where) {
  GrammarBuilder builder;
  const RuleId root = builder.declare("pattern");
  builder.define(root, add_regex(builder, pattern, where));
  return compile_grammar(builder, root, where);
}

}  // namespace qkv
