#include "qkv/engine/grammar/json_expressions.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "qkv/core/utf8.h"
#include "qkv/engine/grammar/json_numbers.h"

namespace qkv {
namespace {

// What a JSON string may hold as it is.
const CharacterSet& plain_characters() {
  static const CharacterSet set = CharacterSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).complement();
  return set;
}

}  // namespace

ExpressionId JsonExpressions::space() {
  if (!space_) {
    space_ = builder_.declare("white space");
    const ExpressionId line = builder_.text("\n");
    const ExpressionId indent = builder_.repeat(builder_.characters(CharacterSet::of(" \t")), 0, 20);
    builder_.define(*space_, builder_.choice({builder_.sequence({}), builder_.text(" "),
                                              builder_.sequence({builder_.repeat(line, 1, 2), indent})}));
  }
  return builder_.reference(*space_);
}

ExpressionId JsonExpressions::bracketed(const char* open, ExpressionId elements, bool may_be_empty,
                                        const char* close) {
  const ExpressionId inside = builder_.sequence({elements, space()});
  return builder_.sequence({builder_.text(open), space(), may_be_empty ? builder_.optional(inside) : inside,
                            builder_.text(close)});
}

ExpressionId JsonExpressions::member(ExpressionId name, ExpressionId value) {
  return builder_.sequence({name, builder_.text(":"), space(), value});
}

ExpressionId JsonExpressions::value() {
  if (!value_) {
    value_ = builder_.declare("JSON value");
    builder_.define(*value_, builder_.choice({object(), array(), string(), add_json_number(builder_),
                                              boolean(), null()}));
  }
  return builder_.reference(*value_);
}

ExpressionId JsonExpressions::object() {
  if (!object_) {
    object_ = builder_.declare("JSON object");
    const ExpressionId one = member(string(), value());
    const ExpressionId further = builder_.repeat(builder_.sequence({comma(), one}), 0);
    builder_.define(*object_, bracketed("{", builder_.sequence({one, further}), true, "}"));
  }
  return builder_.reference(*object_);
}

ExpressionId JsonExpressions::array() {
  if (!array_) {
    array_ = builder_.declare("JSON array");
    const ExpressionId one = value();
    const ExpressionId further = builder_.repeat(builder_.sequence({comma(), one}), 0);
    builder_.define(*array_, bracketed("[", builder_.sequence({one, further}), true, "]"));
  }
  return builder_.reference(*array_);
}

ExpressionId JsonExpressions::quoted(ExpressionId content) {
  return builder_.sequence({builder_.text("\""), content, builder_.text("\"")});
}

// `first`: the digits that the number may begin with. The other three are free.
ExpressionId JsonExpressions::hexadecimal(std::string_view first) {
  const ExpressionId free = builder_.characters(CharacterSet::of("0123456789abcdefABCDEF"));
  return builder_.sequence({builder_.characters(CharacterSet::of(first)), builder_.repeat(free, 3, 3)});
}

// Surrogates come in pairs, which are one character.
ExpressionId JsonExpressions::any_character() {
  if (!character_) {
    const auto surrogate = [&](std::string_view second) {
      const ExpressionId free = builder_.characters(CharacterSet::of("0123456789abcdefABCDEF"));
      return builder_.sequence({builder_.text("u"), builder_.characters(CharacterSet::of("dD")),
                                builder_.characters(CharacterSet::of(second)), builder_.repeat(free, 2, 2)});
    };
    const ExpressionId escaped = builder_.choice(
        {builder_.characters(CharacterSet::of("\"\\/bfnrt")),
         builder_.sequence({builder_.text("u"), hexadecimal("0123456789abcefABCEF")}), surrogate("01234567"),
         builder_.sequence({surrogate("89abAB"), builder_.text("\\"), surrogate("cdefCDEF")})});
    character_ = builder_.choice(
        {builder_.characters(plain_characters()), builder_.sequence({builder_.text("\\"), escaped})});
  }
  return *character_;
}

ExpressionId JsonExpressions::string(int64_t minimum, int64_t maximum) {
  return quoted(builder_.repeat(any_character(), minimum, maximum));
}

ExpressionId JsonExpressions::spelled(const CharacterSet& set) {
  std::vector<ExpressionId> spellings;
  const CharacterSet plain = set & plain_characters();
  if (!plain.empty()) spellings.push_back(builder_.characters(plain));
  const CharacterSet escaped = set - plain_characters();
  for (const auto& [first, last] : escaped.ranges()) {
    for (char32_t character = first; character <= last; ++character) {
      const std::string quoted = dump_json(std::string(1, static_cast<char>(character)));
      spellings.push_back(builder_.text(std::string_view(quoted).substr(1, quoted.size() - 2)));
    }
  }
  return builder_.choice(std::move(spellings));
}

ExpressionId JsonExpressions::string_except(const std::vector<std::string>& excluded) {
  if (excluded.empty()) return string();
  // One spelling per character, or an escape could smuggle an excluded string in.
  const ExpressionId anything = builder_.repeat(spelled(CharacterSet::all()), 0);
  const auto differs = [&](const auto& self, const std::vector<std::u32string_view>& rests) -> ExpressionId {
    std::map<char32_t, std::vector<std::u32string_view>> by_first;
    std::vector<CharacterRange> firsts;
    bool may_end = true;
    for (const std::u32string_view rest : rests) {
      if (rest.empty()) {
        may_end = false;
        continue;
      }
      by_first[rest.front()].push_back(rest.substr(1));
      firsts.push_back({rest.front(), rest.front()});
    }
    std::vector<ExpressionId> ways = {
        builder_.sequence({spelled(CharacterSet(std::move(firsts)).complement()), anything})};
    if (may_end) ways.push_back(builder_.sequence({}));
    for (const auto& [first, further] : by_first)
      ways.push_back(builder_.sequence({spelled(CharacterSet::one(first)), self(self, further)}));
    return builder_.choice(std::move(ways));
  };
  std::vector<std::u32string> decoded;
  for (const std::string& text : excluded) {
    std::u32string& characters = decoded.emplace_back();
    for (size_t position = 0; position < text.size();)
      characters.push_back(next_code_point(text, position).value_or(U'\uFFFD'));
  }
  return quoted(differs(differs, std::vector<std::u32string_view>(decoded.begin(), decoded.end())));
}

ExpressionId JsonExpressions::constant(const Json& json) {
  return builder_.text(dump_json(json));
}

}  // namespace qkv
