// JSON numbers within bounds as grammars: bounds become conditions on digits, from the left.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "qkv/engine/grammar/grammar_builder.h"

namespace qkv {

// A decimal number that a value is compared with.
struct DecimalBound {
  bool negative = false;
  std::string whole;     // digits before the point, no leading zeros but for "0"
  std::string fraction;  // digits behind it, no trailing zeros
  bool excluded = false;
};
// From a JSON number's spelling. nullopt if it has more than 15 digits, which a double does not keep.
std::optional<DecimalBound> decimal_bound(std::string_view spelling, bool excluded);

// Any number: at most 16 digits before the point and 16 behind it, and an exponent of two digits: all are
// finite.
ExpressionId add_json_number(GrammarBuilder& builder);
// Without exponents; of 16 digits before the point at most where the range is open. Behind the point are as
// many digits as a double can tell from the bounds.
ExpressionId add_json_number(GrammarBuilder& builder, const std::optional<DecimalBound>& minimum,
                             const std::optional<DecimalBound>& maximum);
// Of 16 digits at most where the range is open.
ExpressionId add_json_integer(GrammarBuilder& builder, std::optional<int64_t> minimum,
                              std::optional<int64_t> maximum);

}  // namespace qkv
