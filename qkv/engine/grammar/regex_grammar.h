// Regular expressions as grammars: the regular part of ECMAScript's syntax (ECMA-262, 22.2), in which JSON
// schemas write patterns.
#pragma once

#include <functional>
#include <string_view>

#include "qkv/engine/grammar/grammar_builder.h"

namespace qkv {

// Turns a set of characters that the pattern wants into an expression: the characters themselves, or how a
// JSON string spells them.
using CharacterWriter = std::function<ExpressionId(const CharacterSet&)>;

struct RegexOptions {
  // The pattern may match anywhere in the text, as search() does, except where ^ and $ bind it. Otherwise it
  // matches the whole text.
  bool searches = false;
  CharacterWriter write;  // empty: the characters themselves
};

// Understands literals, ".", classes with ranges and negation, \d \D \w \W \s \S, the escapes
// \t \n \v \f \r \0 \cX \xHH \uHHHH \u{H...} and of punctuation, groups (plain, (?:...), named),
// alternatives,
// * + ? {m} {m,} {m,n} and their lazy forms, and ^ and $ at the ends of an alternative outside of groups.
// Throws Error `<where>:<line>:<column>: ...` for all else: look-around, backreferences, word boundaries,
// \p{...}.
ExpressionId add_regex(GrammarBuilder& builder, std::string_view pattern, std::string_view where,
                       const RegexOptions& options = {});

}  // namespace qkv
